/*
 * Keeps the addresses of links true that may lead elsewhere by now: they are verified, and whoever owns
 * them is asked to get others only on a "no" (lease-policy.ts).  A verification that says "same" also
 * ends the settling of its link: a network manager that keeps an address says nothing.
 *
 *   carrier, resumed ──► verify ──► verdict ──► leave
 *                           ▲          ├──────► ask, once until something comes of it
 *                           `─ later ──┴──────► look again
 */
import type { Logger } from 'pino';
import { SystemError } from '../../libc/errno.js';
import { attempt } from '../../libc/guard.js';
import { type LeaseOwner, NOT_CERTAIN } from '../../link/lease-owner.js';
import type { Claim, Gateway, LeaseIdentity, Verdict } from '../../link/verification.js';
import type { Clock } from '../../sync/clock.js';
import type { Address } from '../../wire/address.js';
import type { Emit } from '../view/monitor-events.js';
import {
  type Askings,
  actionFor,
  type Happening,
  isEcho,
  lookAgainMs,
  type OwnerKind,
  pauseMs,
} from './lease-policy.js';
import type { Settling } from './settling.js';

/** A verification that runs. */
export interface Running {
  lease(identity: LeaseIdentity): void;
  close(): void;
}

export interface LeaseCareOptions {
  clock: Clock;
  settling: Pick<Settling, 'end'>;
  /** What there is to verify on it, without a gateway; undefined: nothing can be. */
  claim: (interfaceName: string) => (Claim & { index: number }) | undefined;
  /** As the kernel knows it now. */
  gateway: (interfaceName: string, from: Address) => Gateway | undefined;
  /** Throws SystemError. */
  verify: (
    index: number,
    claim: Claim,
    onVerdict: (family: 4 | 6, verdict: Verdict) => void,
  ) => Running;
  /** The command of the configuration counts as an owner. */
  owner: (interfaceName: string) => Promise<LeaseOwner | 'command' | undefined>;
  ask: (owner: LeaseOwner | 'command', interfaceName: string) => Promise<void>;
  emit: Emit;
  log: Pick<Logger, 'warn'>;
}

interface Look {
  happened: Happening;
  /** How many there were for this happening before. */
  looks: number;
  claim: Claim;
  running: Running | undefined;
  owner: LeaseOwner | 'command' | undefined;
}

interface Asking extends Askings {
  kind: OwnerKind;
  /** The address that was to be replaced. */
  before: Address | undefined;
}

/** The gateways are as old as that at most when a link changes without a sign before it. */
export const REMEMBER_MS = 2_000;

export class LeaseCare {
  readonly #o: LeaseCareOptions;
  readonly #looks = new Map<string, Look>();
  readonly #timers = new Map<string, unknown>();
  /** By interface: as long as one is asked, and what has happened since. */
  readonly #asking = new Map<string, Happening | undefined>();
  readonly #askings = new Map<string, Asking>();
  /** By interface; `from`: of what is sent from that address. */
  readonly #gateways = new Map<string, { from: Address; gateway: Gateway }>();
  /** Links of which it is not known whether they still are what they were. */
  readonly #doubtful = new Set<string>();

  constructor(o: LeaseCareOptions) {
    this.#o = o;
  }

  /** To be called now and then for links that stand still: notes by what they are known again. */
  remember(names: readonly string[]): void {
    for (const name of names) {
      const v4 = this.#doubtful.has(name) ? undefined : this.#o.claim(name)?.v4;
      if (v4 === undefined) continue;
      const gateway = this.#o.gateway(name, v4.address);
      if (gateway !== undefined) this.#gateways.set(name, { from: v4.address, gateway });
    }
  }

  /** The carrier has gone: whatever was asked there is moot. */
  lost(name: string): void {
    this.#doubtful.add(name);
    // A mere client does not touch the carrier: this is another move, and not what it was asked for.
    if (this.#askings.get(name)?.kind === 'client') this.#askings.delete(name);
    this.#end(name);
  }

  /** The carrier has come, or the machine may have been moved. */
  changed(name: string, happened: Happening): void {
    this.#doubtful.add(name);
    this.#end(name);
    if (this.#asking.has(name)) {
      this.#asking.set(name, happened);
      return;
    }
    this.#look(name, happened, 0);
  }

  /** An IPv4 address has come, from whomever: what was asked for is there. */
  addressAdded(name: string, address: Address): void {
    if (this.#o.claim(name)?.v4?.address === address) this.#doubtful.delete(name);
    const asked = this.#askings.get(name);
    if (asked === undefined) return;
    // The same again, although we were told that it is no good: better not asked for soon.
    if (asked.before !== address) this.#askings.delete(name);
    this.#end(name);
  }

  close(): void {
    for (const name of [...this.#looks.keys(), ...this.#timers.keys()]) this.#end(name);
  }

  #look(name: string, happened: Happening, looks: number): void {
    const bare = this.#o.claim(name);
    if (bare === undefined) {
      this.#o.settling.end(name, 4);
      return;
    }
    const claim = this.#withGateway(name, bare);
    const look: Look = { happened, looks, claim, running: undefined, owner: undefined };
    this.#looks.set(name, look);
    if (claim.v4 !== undefined || claim.v6.length > 0) {
      look.running = this.#tried(name, () =>
        this.#o.verify(bare.index, claim, (of, verdict) => this.#judged(name, look, of, verdict)),
      );
    }
    this.#o.owner(name).then(
      (owner) => {
        attempt(() => this.#ownerFound(name, look, owner));
      },
      (error: unknown) => this.#failed(name, 'its DHCP client was not found out', error),
    );
  }

  #withGateway(name: string, claim: Claim): Claim {
    const known = this.#gateways.get(name);
    if (claim.v4 === undefined || known?.from !== claim.v4.address) return claim;
    return { ...claim, v4: { ...claim.v4, gateways: [known.gateway] } };
  }

  #ownerFound(name: string, look: Look, owner: LeaseOwner | 'command' | undefined): void {
    if (this.#looks.get(name) !== look) return;
    look.owner = owner;
    if (owner === undefined) {
      // Nobody would give it another: it is as good as ever.
      this.#doubtful.delete(name);
      this.#end(name);
      this.#o.settling.end(name, 4);
      return;
    }
    const identity = owner === 'command' ? NOT_CERTAIN : owner.identity;
    if (identity !== undefined) look.running?.lease(identity);
    if (look.claim.v4 === undefined) this.#act(name, look, 'no address');
  }

  #judged(name: string, look: Look, family: 4 | 6, verdict: Verdict): void {
    if (this.#looks.get(name) !== look) return;
    // Never about an address that has gone meanwhile.
    const { v4 } = this.#o.claim(name) ?? {};
    if (family === 4 && v4?.address !== look.claim.v4?.address) return;
    this.#o.emit({ event: 'verified', interface: name, reason: `IPv${family} ${verdict}` });
    if (verdict === 'same') this.#o.settling.end(name, family);
    // The question has made the routers speak: whoever manages the interface has heard them, too.
    if (family === 6) return;
    if (verdict === 'same') {
      this.#askings.delete(name);
      this.#doubtful.delete(name);
    } else {
      this.#doubtful.add(name);
    }
    this.#act(name, look, verdict);
  }

  #act(name: string, look: Look, verdict: Verdict | 'no address'): void {
    const { owner, happened } = look;
    switch (actionFor(kindOf(owner), happened, verdict)) {
      case 'leave':
        return;
      case 'look again':
        this.#later(name, lookAgainMs(look.looks), look);
        return;
      case 'wait':
        this.#later(name, lookAgainMs(look.looks), { ...look, happened: 'resumed' });
        return;
      case 'ask':
        if (owner !== undefined) this.#ask(name, look, owner, verdict);
        return;
    }
  }

  #later(name: string, ms: number | undefined, { happened, looks }: Look): void {
    this.#end(name);
    if (ms === undefined) return;
    const again = () => {
      this.#timers.delete(name);
      this.#look(name, happened, looks + 1);
    };
    this.#timers.set(name, this.#o.clock.setTimer(ms, again));
  }

  #ask(
    name: string,
    look: Look,
    owner: LeaseOwner | 'command',
    verdict: Verdict | 'no address',
  ): void {
    const now = this.#o.clock.now();
    const asked = this.#askings.get(name);
    if (verdict !== 'other' && isEcho(asked, now)) return;
    if (owner !== 'command' && owner.kind === 'manager' && owner.mayBeTold !== 'yes') {
      const why = 'it is in another network, and nobody may tell its network manager';
      if (owner.mayBeTold === 'not now') this.#later(name, lookAgainMs(look.looks), look);
      else this.#o.log.warn({ interface: name, manager: owner.name }, why);
      return;
    }
    const waitMs = pauseMs(asked, now);
    if (waitMs > 0) {
      this.#later(name, waitMs, look);
      return;
    }
    this.#end(name);
    const before = look.claim.v4?.address;
    const inVain = (asked?.inVain ?? 0) + 1;
    this.#askings.set(name, { kind: kindOf(owner), inVain, lastMs: now, before });
    this.#asking.set(name, undefined);
    this.#o
      .ask(owner, name)
      .then(
        () => {
          const client = owner === 'command' ? 'renew' : owner.name;
          this.#o.emit({ event: 'dhcp-renewed', interface: name, client });
        },
        (error: unknown) => this.#failed(name, 'renewal failed', error),
      )
      .finally(() => this.#asked(name, look));
  }

  /* It may come to nothing: looked at again, unless an address comes or something else happens. */
  #asked(name: string, look: Look): void {
    const since = this.#asking.get(name);
    this.#asking.delete(name);
    if (since !== undefined) this.#look(name, since, 0);
    else if (this.#askings.has(name)) this.#later(name, lookAgainMs(look.looks), look);
  }

  #end(name: string): void {
    this.#looks.get(name)?.running?.close();
    this.#looks.delete(name);
    this.#o.clock.clearTimer(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #tried<T>(name: string, act: () => T): T | undefined {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#failed(name, 'not verified', error);
      return undefined;
    }
  }

  #failed(name: string, what: string, error: unknown): void {
    if (!(error instanceof SystemError)) throw error;
    this.#o.log.warn({ err: error, interface: name }, what);
    this.#o.settling.end(name, 4);
  }
}

function kindOf(owner: LeaseOwner | 'command' | undefined): OwnerKind {
  if (owner === undefined) return 'nobody';
  return owner === 'command' ? owner : owner.kind;
}
