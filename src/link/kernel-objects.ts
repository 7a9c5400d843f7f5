/*
 * Addresses, routes and rules of ours in the kernel, as data: what is wanted minus what is there is a
 * list of steps, each of which can be done again without harm, and fail alone.
 */
import { SystemError } from '../libc/errno.js';
import type { NetlinkMessage } from '../netlink/message.js';
import type { Netlink } from '../netlink/netlink.js';
import type { RuleRecord } from './rtnetlink.js';
import {
  type AddressChange,
  changeAddress,
  changeRoute,
  changeRule,
  type RouteChange,
} from './rtnetlink-request.js';

/** One object.  `text`: as `ip` writes it; what has the same text is the same object. */
export type KernelObject = { text: string } & (
  | { kind: 'rule'; rule: RuleRecord }
  | { kind: 'route'; route: RouteChange }
  | { kind: 'address'; address: AddressChange }
);

/** A change of one object, and why. */
export interface Step {
  verb: 'add' | 'remove';
  object: KernelObject;
  because: string;
}

/** What has to be added, in the order of `wanted`; then what has to go, in the other order. */
export function steps(
  wanted: readonly KernelObject[],
  observed: readonly KernelObject[],
  because: Record<Step['verb'], string>,
): Step[] {
  const there = new Set(observed.map(({ text }) => text));
  const kept = new Set(wanted.map(({ text }) => text));
  const change = (verb: Step['verb']) => (object: KernelObject) => {
    return { verb, object, because: because[verb] };
  };
  return [
    ...wanted.filter(({ text }) => !there.has(text)).map(change('add')),
    ...observed
      .filter(({ text }) => !kept.has(text))
      .map(change('remove'))
      .reverse(),
  ];
}

export class KernelObjects {
  #netlink: Pick<Netlink, 'request'>;

  constructor(netlink: Pick<Netlink, 'request'>) {
    this.#netlink = netlink;
  }

  /** What a dump names, as `decode` reads it.  Throws SystemError. */
  list<T>(
    message: Uint8Array,
    attempted: string,
    decode: (m: NetlinkMessage) => T | undefined,
  ): T[] {
    try {
      return this.#netlink.request(message, attempted).flatMap((m) => decode(m) ?? []);
    } catch (error) {
      // A table that has never had a route, or a family that the kernel does not speak.
      if (hasCode(error, ['ENOENT', 'EAFNOSUPPORT', 'ENOTSUP'])) return [];
      throw error;
    }
  }

  /** Carries out one step.  Throws SystemError. */
  apply({ verb, object }: Step): void {
    this.change(verb, `${verb} ${object.text}`, messageOf(verb, object));
  }

  /** What is there already, or not there any more, is fine.  Throws SystemError. */
  change(verb: 'add' | 'remove', attempted: string, message: Uint8Array): void {
    try {
      this.#netlink.request(message, attempted);
    } catch (error) {
      const done = verb === 'add' ? ['EEXIST'] : ['ENOENT', 'ESRCH', 'EADDRNOTAVAIL'];
      if (!hasCode(error, done)) throw error;
    }
  }
}

function messageOf(verb: Step['verb'], object: KernelObject): Uint8Array {
  switch (object.kind) {
    case 'rule':
      return changeRule(verb, object.rule);
    case 'route':
      return changeRoute(verb, object.route);
    case 'address':
      return changeAddress(verb, object.address);
  }
}

const hasCode = (error: unknown, codes: string[]): boolean =>
  error instanceof SystemError && codes.includes(error.code);
