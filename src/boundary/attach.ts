/*
 * Puts the two programs on an interface and takes them off again: clsact qdisc, one filter per
 * direction, always the same handle and priority, so that ours are found after a restart.
 *
 * Never touches a filter that is not ours; the clsact goes only when it is empty.
 * tc(8), bpf_tc_* in <bpf/libbpf.h>; TCX is not in libbpf 1.1.
 */
import { ERRNO, SystemError } from '../libc/errno.js';
import {
  AF_NETLINK,
  bindNetlink,
  closeFd,
  hardwareType,
  interfaceIndex,
  interfaces,
  NETLINK_ROUTE,
  netlinkSockaddr,
  openSocket,
  receive,
  SOCK_RAW,
  sendTo,
} from '../libc/socket.js';
import {
  clearLog,
  infoByFd,
  libbpfError,
  TC_EGRESS,
  TC_INGRESS,
  TC_REPLACE,
  tcAttach,
  tcDetach,
  tcHook,
  tcHookCreate,
  tcHookDestroy,
  tcOptions,
  tcProgramId,
  tcQuery,
} from './libbpf.js';

/** 'ti'; and behind whatever an operator puts at the usual, lower priorities. */
const HANDLE = 0x7469;
const PRIORITY = 0xc069;
const ARPHRD_ETHER = 1;

const DIRECTIONS = ['egress', 'ingress'] as const;
const ATTACH_POINT = { egress: TC_EGRESS, ingress: TC_INGRESS };

/** Descriptors of the two programs. */
export interface TcPrograms {
  egress: number;
  ingress: number;
}

/**
 * Attaches both programs.  No-op where they are attached; in the place of the programs `instead`,
 * without a moment between the two.  Throws SystemError.
 */
export function attach(interfaceName: string, programs: TcPrograms, instead?: TcPrograms): void {
  const attempted = `attach boundary to ${interfaceName}`;
  const index = indexOf(interfaceName, attempted);
  if (hardwareType(interfaceName) !== ARPHRD_ETHER) {
    throw new SystemError(attempted, ERRNO.EOPNOTSUPP, {
      hint: 'only Ethernet interfaces so far: not tun, not lo',
    });
  }
  clearLog();
  const created = tcHookCreate(tcHook(index, TC_INGRESS | TC_EGRESS));
  if (created !== 0 && created !== -ERRNO.EEXIST) throw libbpfError(attempted, created);
  for (const direction of DIRECTIONS) {
    const hook = tcHook(index, ATTACH_POINT[direction]);
    const attachedId = queryProgram(hook);
    if (attachedId === programId(programs[direction])) continue;
    const replaces = instead !== undefined && attachedId === programId(instead[direction]);
    if (attachedId !== undefined && !replaces) {
      throw new SystemError(attempted, ERRNO.EEXIST, {
        hint: 'another boundary is there: `tiflow down` with its --run-dir takes it off',
      });
    }
    const o = { programFd: programs[direction], flags: replaces ? TC_REPLACE : 0 };
    const error = tcAttach(hook, tcOptions(HANDLE, PRIORITY, o));
    if (error !== 0) throw libbpfError(`${attempted} (${direction})`, error);
  }
}

/** Takes both programs off.  No-op where they are not.  Throws SystemError. */
export function detach(interfaceName: string, programs: TcPrograms): void {
  const attempted = `detach boundary from ${interfaceName}`;
  const index = indexOf(interfaceName, attempted);
  clearLog();
  let detached = false;
  for (const direction of DIRECTIONS) {
    const hook = tcHook(index, ATTACH_POINT[direction]);
    if (queryProgram(hook) !== programId(programs[direction])) continue;
    const error = tcDetach(hook, tcOptions(HANDLE, PRIORITY));
    if (error !== 0) throw libbpfError(`${attempted} (${direction})`, error);
    detached = true;
  }
  if (detached && !hasFilters(index)) tcHookDestroy(tcHook(index, TC_INGRESS | TC_EGRESS));
}

/** The interfaces that carry one of the programs, as tc tells. */
export function attachedTo(programs: TcPrograms): string[] {
  const ids = DIRECTIONS.map((direction) => programId(programs[direction]));
  const carries = (index: number): boolean =>
    DIRECTIONS.some(
      (direction, i) => queryProgram(tcHook(index, ATTACH_POINT[direction])) === ids[i],
    );
  return interfaces()
    .filter((i) => carries(i.index))
    .map((i) => i.name);
}

function indexOf(interfaceName: string, attempted: string): number {
  const index = interfaceIndex(interfaceName);
  if (index !== undefined) return index;
  throw new SystemError(attempted, ERRNO.ENODEV, {
    hint: 'no such interface; `ip link` lists them',
  });
}

/** The program at our place of a hook; undefined: none, or not even a clsact. */
function queryProgram(hook: Uint8Array): number | undefined {
  const options = tcOptions(HANDLE, PRIORITY);
  const error = tcQuery(hook, options);
  return error === 0 ? tcProgramId(options) : undefined;
}

function programId(fd: number): number {
  const info = Buffer.alloc(64);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(info.length);
  const error = infoByFd(fd, info, length);
  if (error !== 0) throw libbpfError('read about a program', error);
  return info.readUInt32LE(4);
}

/* libbpf destroys a clsact whatever is on it, so ask: RTM_GETTFILTER, both directions. */
function hasFilters(index: number): boolean {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try {
    bindNetlink(fd, 0);
    return [0xfffffff2, 0xfffffff3].some((parent) => {
      sendTo(fd, filterDump(index, parent), netlinkSockaddr());
      return dumpIsNotEmpty(fd);
    });
  } finally {
    closeFd(fd);
  }
}

/** struct nlmsghdr and struct tcmsg. */
function filterDump(index: number, parent: number): Uint8Array {
  const [RTM_GETTFILTER, NLM_F_REQUEST, NLM_F_DUMP] = [46, 1, 0x300];
  const message = Buffer.alloc(16 + 20);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(RTM_GETTFILTER, 4);
  message.writeUInt16LE(NLM_F_REQUEST | NLM_F_DUMP, 6);
  message.writeInt32LE(index, 20);
  message.writeUInt32LE(parent, 28);
  return message;
}

/** The kernel has answered by the time that the request was sent; reads to the end of it. */
function dumpIsNotEmpty(fd: number): boolean {
  const [RTM_NEWTFILTER, NLMSG_DONE, NLMSG_ERROR] = [44, 3, 2];
  const buffer = Buffer.alloc(65536);
  let found = false;
  for (let length = receive(fd, buffer); length > 0; length = receive(fd, buffer)) {
    for (let at = 0; at + 16 <= length; at += Math.max(16, (buffer.readUInt32LE(at) + 3) & ~3)) {
      const type = buffer.readUInt16LE(at + 4);
      if (type === NLMSG_DONE || type === NLMSG_ERROR) return found;
      found ||= type === RTM_NEWTFILTER;
    }
  }
  return found;
}
