/*
 * Puts the two programs on an interface and takes them off again: clsact qdisc, one filter per
 * direction, always the same handle and priority, so that ours are found after a restart.
 *
 * Never touches a filter that is not ours; the clsact goes only when it is empty.
 */
import { ERRNO, SystemError } from '../libc/errno.js';
import { hardwareType, interfaceIndex } from '../libc/socket.js';
import type { Netlink } from '../netlink/netlink.js';
import { holderOf } from './holder.js';
import { programInfo } from './libbpf.js';
import { isOurName } from './programs.js';
import {
  addClsact,
  type Filter,
  filterAt,
  hasFilters,
  ingressQdiscs,
  removeClsact,
  removeFilter,
  setFilter,
} from './traffic-control.js';

/** 'ti'; and behind whatever an operator puts at the usual, lower priorities. */
const PLACE = { handle: 0x7469, priority: 0xc069 } as const;
const ARPHRD_ETHER = 1;

const DIRECTIONS = ['egress', 'ingress'] as const;

/** Descriptors of the two programs. */
export interface TcPrograms {
  egress: number;
  ingress: number;
}

/** What an interface has at our place. */
export interface Hook {
  egress: Filter | undefined;
  ingress: Filter | undefined;
}

type Asked = Pick<Netlink, 'request'>;

/** What an interface has now; nothing, if it is gone. */
export const hookOf = (netlink: Asked, index: number): Hook => ({
  egress: filterAt(netlink, index, 'egress', PLACE),
  ingress: filterAt(netlink, index, 'ingress', PLACE),
});

/** Of all interfaces on which there can be anything, by index. */
export function allHooks(netlink: Asked): Map<number, Hook> {
  const indexes = [...ingressQdiscs(netlink).keys()];
  return new Map(indexes.map((index) => [index, hookOf(netlink, index)]));
}

/** Of those with our name, but not our programs: nobody has these in hand any more. */
export const isLost = (filter: Filter): boolean =>
  isOurName(filter.name) && holderOf(filter.programId) === undefined;

/**
 * Attaches both programs.  No-op where they are attached; in the place of those that `replaces` takes
 * for ours, and of lost ones, without a moment between the two.  Throws SystemError.
 */
export function attach(
  netlink: Asked,
  interfaceName: string,
  programs: TcPrograms,
  replaces: (programId: number) => boolean,
): void {
  const attempted = `attach boundary to ${interfaceName}`;
  const index = indexOf(interfaceName, attempted);
  if (hardwareType(interfaceName) !== ARPHRD_ETHER) {
    throw new SystemError(attempted, ERRNO.EOPNOTSUPP, {
      hint: 'only Ethernet interfaces so far: not tun, not lo',
    });
  }
  const qdisc = ingressQdiscs(netlink).get(index);
  if (qdisc === undefined) addClsact(netlink, index, attempted);
  else if (qdisc !== 'clsact') throw inTheWay(attempted, interfaceName, qdisc);
  const hook = hookOf(netlink, index);
  for (const direction of DIRECTIONS) {
    const there = hook[direction];
    const { id, name } = programInfo(programs[direction]);
    if (there?.programId === id) continue;
    if (there !== undefined && !replaces(there.programId) && !isLost(there)) {
      throw new SystemError(attempted, ERRNO.EEXIST, { hint: whoseIs(there) });
    }
    const programFd = programs[direction];
    const filter = { ...PLACE, programFd, name: `${name}:[${id}]`, replace: there !== undefined };
    setFilter(netlink, index, direction, filter, `${attempted} (${direction})`);
  }
}

/** Takes off the programs that are ours.  No-op where there are none.  Throws SystemError. */
export function detach(
  netlink: Asked,
  interfaceName: string,
  isOurs: (filter: Filter) => boolean,
): void {
  const attempted = `detach boundary from ${interfaceName}`;
  const index = indexOf(interfaceName, attempted);
  const hook = hookOf(netlink, index);
  let detached = false;
  for (const direction of DIRECTIONS) {
    const there = hook[direction];
    if (there === undefined || !isOurs(there)) continue;
    removeFilter(netlink, index, direction, PLACE, `${attempted} (${direction})`);
    detached = true;
  }
  if (detached && !hasFilters(netlink, index)) removeClsact(netlink, index, attempted);
}

const inTheWay = (attempted: string, name: string, qdisc: string): SystemError =>
  new SystemError(attempted, ERRNO.EEXIST, {
    hint:
      `the qdisc \`${qdisc}\` of somebody else is where a clsact has to be, which can do all that it ` +
      `does: tc qdisc del dev ${name} ${qdisc}`,
  });

function whoseIs(filter: Filter): string {
  const holder = holderOf(filter.programId);
  return holder === undefined
    ? `a filter of somebody else has our place: ${filter.name}`
    : `another boundary is there, ${holder}: \`tiflow down\` with its --run-dir takes it off`;
}

function indexOf(interfaceName: string, attempted: string): number {
  const index = interfaceIndex(interfaceName);
  if (index !== undefined) return index;
  throw new SystemError(attempted, ERRNO.ENODEV, {
    hint: 'no such interface; `ip link` lists them',
  });
}
