/*
 * Where the attacks take place: one lab for all of a file, real daemons, real programs.
 *
 *     aramis ──── router ──┬── athos ─┬── vm          a server; aramis and vm run tiflow
 *     insider,             │          └── stranger    192.0.2.77, 2001:db8:1::77: no tiflow
 *     raw packets          └── porthos
 *
 * The insider on aramis is whoever may connect: it has a flow of its own with the server, and so
 * its keys.  Its raw packets bear any source.
 */
import { after, before } from 'node:test';
import { Injector } from '../../src/lab/injector.js';
import { Lab, type LabOptions } from '../../src/lab/lab.js';
import { onEveryExit } from '../../src/lab/runner.js';
import { Sniffer } from '../../src/lab/sniffer.js';
import { type PlayedTransfer, Stage } from '../../src/lab/stage.js';
import type { Family, HostName } from '../../src/lab/topology.js';
import { now } from '../../src/lab/wait.js';
import {
  type Confirm,
  deriveKeys,
  type Keys,
  type Sync,
  type SyncAck,
  signConfirm,
  signSync,
} from '../../src/sync/keys.js';
import { address } from '../../src/wire/address.js';
import { encodeOption } from '../../src/wire/option.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq, seqAdd } from '../../src/wire/seq.js';

export const STRANGER: Record<Family, string> = { 4: '192.0.2.77', 6: '2001:db8:1::77' };
export const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';

const NOTHING = new Uint8Array(0);

/** The ends of a packet, as numbers and text. */
export type Ends = Pick<Packet, 'source' | 'sourcePort' | 'destination' | 'destinationPort'>;

/** A lab that stands while the tests of a file run, and how to attack in it. */
export class Field {
  #lab: Lab | undefined;
  #release = (): void => {};
  readonly #injectors = new Map<HostName, Promise<Injector>>();
  #stage: Stage | undefined;

  constructor(o: Partial<LabOptions> = {}) {
    before(async () => {
      if (skip !== false) return;
      const name = `attack-${process.pid}`;
      const lab = Lab.prepare({ name, owned: true, daemons: ['aramis', 'vm'], ...o });
      this.#lab = lab;
      this.#release = onEveryExit(() => lab.teardown());
      await lab.build();
      this.#stage = new Stage({
        ...{ lab, family: 4, seed: 1, onStep: () => {}, onExhibit: undefined },
      });
      lab.plugStranger('athos', STRANGER[4]);
      lab.run('stranger', ['ip', 'addr', 'add', `${STRANGER[6]}/64`, 'dev', 'eth0', 'nodad']);
      const route = ['ip', 'route', 'add', 'default', 'via', '2001:db8:1::1', 'dev', 'eth0'];
      lab.run('stranger', route);
    });
    after(() => {
      this.#lab?.teardown();
      this.#release();
    });
  }

  get lab(): Lab {
    if (this.#lab === undefined) throw new Error('the lab is not built');
    return this.#lab;
  }

  get stage(): Stage {
    if (this.#stage === undefined) throw new Error('the lab is not built');
    return this.#stage;
  }

  /** Sends raw packets from a host; bytes may be wrong in anything. */
  async send(host: HostName, ...packets: Array<Packet | Uint8Array>): Promise<void> {
    const started = this.#injectors.get(host) ?? Injector.start(this.lab, host);
    this.#injectors.set(host, started);
    const injector = await started;
    for (const packet of packets) {
      if (packet instanceof Uint8Array) injector.sendBytes(packet);
      else injector.send(packet);
    }
    await injector.sent();
  }

  /** A connection of the insider's to the VM, whose set-up it has seen. */
  async insider(family: Family = 4): Promise<Insider> {
    const seen = await Sniffer.start(this.lab, 'aramis', family);
    const own = await this.stage.transfer({ family });
    const opens = await Promise.all(
      ['S', 'SA'].map(async (flags) => {
        const { options } = await seen.waitFor(
          `${flags} of the set-up`,
          (p) =>
            (p.destinationPort === own.port || p.sourcePort === own.port) &&
            p.flags.replace(/[EC]/g, '') === flags,
        );
        return options.find((option) => option.kind === 'ti-open');
      }),
    );
    seen.stop();
    const [initiator, responder] = opens;
    if (initiator === undefined || responder === undefined) throw new Error('no TI_OPEN');
    return new Insider(family, own, deriveKeys(encodeOption(initiator), encodeOption(responder)), {
      initiatorHalf: initiator.tifidHalf,
      responderHalf: responder.tifidHalf,
    });
  }

  /** A connection without tiflow at its client, which is not the insider's. */
  async plain(family: Family = 4): Promise<PlayedTransfer & { ends: Ends }> {
    const transfer = await this.stage.transfer({ family, client: 'stranger', server: 'vm' });
    transfer.streams.write(2e5);
    await transfer.streams.flowing(now());
    const [detail] = (await transfer.streams.client.report(true)).details;
    const ends = {
      source: address(STRANGER[family]),
      sourcePort: detail?.client_port ?? 0,
      destination: address(this.lab.vmAddress(family)),
      destinationPort: transfer.port,
    };
    return { ...transfer, ends };
  }
}

/** Somebody with a flow of its own, and what can be made with its keys. */
export class Insider {
  #epoch = 0;

  constructor(
    readonly family: Family,
    readonly own: PlayedTransfer,
    readonly keys: Keys,
    readonly tifid: Pick<Sync, 'initiatorHalf' | 'responderHalf'>,
  ) {}

  /** A claim of the insider's flow, from any ends; everything in it is right. */
  async claim(ends: Ends): Promise<Packet & { sync: Sync }> {
    const { received } = await this.own.streams.client.report();
    this.#epoch += 1;
    const sync = signSync(this.keys.initiator, {
      kind: 'ti-sync',
      epoch: this.#epoch,
      ...this.tifid,
      tiack: received >>> 0,
      nonce: 0x0bad_0000 + this.#epoch,
    });
    const options: Packet['options'] = [{ kind: 'mss', mss: 1400 }, sync];
    const flags = 'S';
    const numbers = { seq: seq(0x1000_0000 + this.#epoch), ack: seq(0), window: 65_535 };
    return { ...ends, flags, ...numbers, options, payload: NOTHING, sync };
  }

  /** What confirms a claim, for who has seen its SYN/ACK. */
  confirm(claim: Packet & { sync: Sync }, synAck: Packet): Packet {
    const syncAck = synAck.options.find((o): o is SyncAck => o.kind === 'ti-sync-ack');
    if (syncAck === undefined) throw new Error('no TI_SYNC on the SYN/ACK');
    const unsigned = { kind: 'ti-confirm', epoch: claim.sync.epoch } as const;
    const confirm: Confirm = signConfirm(this.keys.initiator, unsigned, [claim.sync, syncAck]);
    const { source, sourcePort, destination, destinationPort } = claim;
    return {
      ...{ source, sourcePort, destination, destinationPort },
      flags: 'A',
      ...{ seq: seqAdd(claim.seq, 1), ack: seqAdd(synAck.seq, 1), window: 65_000 },
      options: [confirm],
      payload: NOTHING,
    };
  }
}
