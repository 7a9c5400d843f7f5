/* By which addresses a gateway is reached on each uplink, and since when.  The hosts behind it keep
 * theirs: as long as the gateway is where it was when a flow of theirs began, the network brings
 * that flow's packets here, and it is at home.  A gateway that got another address is elsewhere,
 * and so are the flows.
 *
 *   flow begins          address goes: the flow is lost      another one comes: it moves there
 *   ──────┼──────────────────────┼──────────────────────────────────┼──────────►
 *
 * An uplink that never had an address of the flow's family says nothing: then the link decides.
 * Kept in a file, for a daemon that was not there when the address went.
 */

import { z } from 'zod';
import type { Flow } from '../../boundary/abi.gen.js';
import { attempt } from '../../libc/guard.js';
import { monotonicMs, msOfNs } from '../../libc/monotonic.js';
import { type Address, address, family } from '../../wire/address.js';
import { uplinksPath } from '../config/run-directory.js';
import { readState, writeState } from '../config/state-file.js';
import { isForwarded } from '../view/flow-views.js';
import type { Surroundings } from './whereabouts.js';

/* Some years of daily renumbering. */
const GONE_MAX = 1024;

const SHAPE = z.array(
  z.object({
    address: z.string().transform((text) => address(text)),
    index: z.number(),
    sinceMs: z.number(),
    goneMs: z.number().nullable(),
  }),
);

interface Entry {
  address: Address;
  /** Of the interface. */
  index: number;
  sinceMs: number;
  goneMs: number | null;
}

/** An address on an uplink. */
export type UplinkAddress = Pick<Entry, 'address' | 'index'>;

export interface Uplink {
  interface: string;
  /** Whether it can be relied on. */
  carrier: boolean;
}

export class Uplinks {
  readonly #path: string;
  #entries: Entry[];
  #unsaved = false;

  constructor(runDir: string) {
    this.#path = uplinksPath(runDir);
    this.#entries = readState(this.#path, SHAPE) ?? []; // the first daemon here
  }

  /** To be called with what is there, before a flow is judged. */
  update(there: readonly UplinkAddress[], nowMs = monotonicMs()): void {
    const known = new Map(this.#entries.map((entry) => [keyOf(entry), entry]));
    const uplinks = new Set(this.#entries.map(({ index }) => index));
    const present = new Set(there.map(keyOf));
    let changed = false;
    for (const each of there) {
      const entry = known.get(keyOf(each));
      if (entry !== undefined && entry.goneMs === null) continue;
      changed = true;
      // One that comes back is where it was; what a new uplink has, it had before its first flow.
      if (entry !== undefined) entry.goneMs = null;
      else
        this.#entries.push({ ...each, sinceMs: uplinks.has(each.index) ? nowMs : 0, goneMs: null });
    }
    for (const entry of this.#entries) {
      if (entry.goneMs !== null || present.has(keyOf(entry))) continue;
      changed = true;
      entry.goneMs = nowMs;
    }
    this.#unsaved ||= changed;
    if (this.#unsaved) this.#unsaved = !attempt(() => this.#write());
  }

  /**
   * Whether the flow is one of a host behind this gateway whose own address is on the network,
   * not one of ours, which NAT has lent it.  `local`: of its wire, held by no interface.
   */
  routes(flow: Flow, local: Address): boolean {
    return isForwarded(flow) && !this.#entries.some((entry) => entry.address === local);
  }

  /**
   * What is around a flow, if its address is routed to this gateway: its wire's address is as good
   * as held by the uplink, unless that has lost the addresses that it had when the flow began.
   */
  around(flow: Flow, local: Address, s: Surroundings & UplinksSeen): Surroundings {
    if (s.holders(local).length > 0 || !this.routes(flow, local)) return s;
    const uplink = this.#hasLeft(flow, family(local)) ? undefined : s.uplink(flow.outside, local);
    const holders = uplink === undefined ? [] : [uplink];
    return { ...s, holders: (a) => (a === local ? holders : s.holders(a)) };
  }

  #hasLeft(flow: Flow, version: 4 | 6): boolean {
    const createdMs = msOfNs(flow.created);
    const then = this.#entries.filter(
      ({ address: a, index, sinceMs, goneMs }) =>
        index === flow.outside &&
        family(a) === version &&
        sinceMs <= createdMs &&
        (goneMs === null || goneMs > createdMs),
    );
    return then.length > 0 && then.every(({ goneMs }) => goneMs !== null);
  }

  /* Whole or not at all: the daemon may die here. */
  #write(): void {
    const gone = this.#entries.filter(({ goneMs }) => goneMs !== null);
    const oldest = new Set(gone.slice(0, Math.max(0, gone.length - GONE_MAX)));
    this.#entries = this.#entries.filter((entry) => !oldest.has(entry));
    writeState(this.#path, this.#entries);
  }
}

/** What this needs to see beside what the whereabouts of a flow do. */
export interface UplinksSeen {
  /** The interface of this index, for addresses of that family; undefined: gone. */
  uplink(index: number, of: Address): Uplink | undefined;
}

const keyOf = ({ address: a, index }: UplinkAddress): string => `${index} ${a}`;
