/*
 * Mallory is on the path and has no key.  She replays what she has seen of synchronizations: as
 * it was, from her own address, or with a bit changed; and where that gets her a SYN/ACK she
 * answers it with the best CONFIRM that she can put together.
 */
import type { Clock } from '../../src/sync/clock.js';
import type { Address } from '../../src/wire/address.js';
import type { TcpOption } from '../../src/wire/option.js';
import type { Packet } from '../../src/wire/packet.js';
import { seqAdd } from '../../src/wire/seq.js';
import type { LinkModel } from './link-model.js';
import type { Random } from './random.js';

const SEEN_MAX = 50;
const ATTACKS_MAX = 150;

export class Attacker {
  readonly #seen: Packet[] = [];
  #attacks = 0;

  constructor(
    readonly address: Address,
    private readonly o: { clock: Clock; random: Random; link: LinkModel },
  ) {
    o.link.plug(address, (p) => this.#answer(p));
  }

  /** A packet goes by. */
  see(p: Packet): void {
    if (!p.options.some((option) => option.kind.startsWith('ti-'))) return;
    if (this.#seen.length < SEEN_MAX) this.#seen.push(p);
    if (this.o.random.chance(0.5)) this.#later(() => this.#replay());
  }

  #replay(): void {
    const { random, link } = this.o;
    const p = random.pick(this.#seen);
    switch (random.pick(['as it was', 'from here', 'changed'] as const)) {
      case 'as it was':
        link.transmit(p);
        break;
      case 'from here':
        link.transmit({ ...p, source: this.address });
        break;
      case 'changed':
        link.transmit({ ...p, options: p.options.map((option) => this.#change(option)) });
    }
  }

  #answer(p: Packet): void {
    if (!p.flags.startsWith('SA')) return;
    const seen = this.#seen.flatMap((s) => s.options).filter((o) => o.kind === 'ti-confirm');
    const forged = { kind: 'ti-confirm', epoch: 1, mac: this.o.random.bytes(16) } as const;
    const syncAck = p.options.find((o) => o.kind === 'ti-sync-ack');
    const base = seen.length > 0 && this.o.random.chance(0.5) ? this.o.random.pick(seen) : forged;
    const epoch = syncAck !== undefined && 'epoch' in syncAck ? syncAck.epoch : 1;
    this.o.link.transmit({
      ...p,
      source: p.destination,
      sourcePort: p.destinationPort,
      destination: p.source,
      destinationPort: p.sourcePort,
      flags: 'A',
      seq: p.ack,
      ack: seqAdd(p.seq, 1),
      options: [{ ...base, epoch } as TcpOption],
    });
  }

  #change(option: TcpOption): TcpOption {
    const { random } = this.o;
    if (!('mac' in option)) return option;
    const changed = { ...option };
    if (random.chance(0.4)) {
      const mac = Uint8Array.from(option.mac);
      const at = random.between(0, mac.length - 1);
      mac[at] = (mac[at] ?? 0) ^ (1 << random.between(0, 7));
      return { ...changed, mac };
    }
    if ('epoch' in changed && random.chance(0.4)) {
      return { ...changed, epoch: (changed.epoch + random.between(1, 3)) & 0xffff };
    }
    if ('tiack' in changed) return { ...changed, tiack: (changed.tiack + 1) >>> 0 };
    return changed;
  }

  #later(attack: () => void): void {
    if (this.#attacks >= ATTACKS_MAX) return;
    this.#attacks += 1;
    this.o.clock.setTimer(this.o.random.between(0, 8000), attack);
  }
}
