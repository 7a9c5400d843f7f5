/*
 * Traffic control as rtnetlink speaks it: the clsact qdisc of an interface and the BPF filters on
 * it (tc(8), linux/pkt_sched.h, linux/pkt_cls.h).
 *
 * Not for decisions: what is ours, and what to put where, is attach.ts.
 */
import { SystemError } from '../libc/errno.js';
import {
  attribute,
  attributeNumber,
  attributeText,
  decodeAttributes,
  encodeMessage,
  FLAG,
  type NetlinkMessage,
} from '../netlink/message.js';
import type { Netlink } from '../netlink/netlink.js';

const RTM = {
  NEWQDISC: 36,
  DELQDISC: 37,
  GETQDISC: 38,
  NEWTFILTER: 44,
  DELTFILTER: 45,
  GETTFILTER: 46,
} as const;

/* TC_H_CLSACT is TC_H_INGRESS: an interface has one of both. */
const CLSACT = { parent: 0xfffffff1, handle: 0xffff0000 } as const;
const PARENT = { ingress: 0xfffffff2, egress: 0xfffffff3 } as const;
const ETH_P_ALL = 0x0300; // network byte order
const TCA = { KIND: 1, OPTIONS: 2 } as const;
const TCA_BPF = { FD: 6, NAME: 7, FLAGS: 8, ID: 11 } as const;
const DIRECT_ACTION = 1;
const TCMSG_BYTES = 20;

export type Direction = keyof typeof PARENT;

/** Where one filter sits among those of a direction. */
export interface FilterPlace {
  handle: number;
  priority: number;
}

/** A BPF filter; its name is what whoever attached it has called it. */
export interface Filter {
  programId: number;
  name: string;
}

/**
 * The kinds of qdiscs at the place of a clsact: that, or `ingress`.  By interface index.  Of one alone
 * older kernels tell everybody who listens, and not who asks.
 */
export function ingressQdiscs(netlink: Pick<Netlink, 'request'>): Map<number, string> {
  const dump = encodeMessage(RTM.GETQDISC, FLAG.REQUEST | FLAG.DUMP, [tcmsg({ index: 0 })]);
  const found = new Map<number, string>();
  for (const message of netlink.request(dump, 'list the qdiscs')) {
    const qdisc = decode(message);
    if (qdisc?.parent === CLSACT.parent) found.set(qdisc.index, qdisc.kind);
  }
  return found;
}

/** The filter at a place; undefined: none, or no BPF filter, or not even a clsact. */
export function filterAt(
  netlink: Pick<Netlink, 'request'>,
  index: number,
  direction: Direction,
  place: FilterPlace,
): Filter | undefined {
  const get = encodeMessage(RTM.GETTFILTER, FLAG.REQUEST | FLAG.ACK, [
    filterHeader(index, direction, place),
  ]);
  const answer = absentAsNone(() => netlink.request(get, `read a filter of interface ${index}`));
  for (const message of answer) {
    const filter = decode(message);
    if (filter?.kind !== 'bpf' || filter.options === undefined) continue;
    const options = decodeAttributes(filter.options);
    const programId = attributeNumber(options?.get(TCA_BPF.ID));
    const name = options?.get(TCA_BPF.NAME);
    if (programId !== undefined) return { programId, name: name ? attributeText(name) : '' };
  }
  return undefined;
}

/** Whether anybody has a filter there, of any kind.  Throws SystemError. */
export function hasFilters(netlink: Pick<Netlink, 'request'>, index: number): boolean {
  return (['ingress', 'egress'] as const).some((direction) => {
    const dump = encodeMessage(RTM.GETTFILTER, FLAG.REQUEST | FLAG.DUMP, [
      tcmsg({ index, parent: PARENT[direction] }),
    ]);
    return netlink.request(dump, `list the filters of interface ${index}`).length > 0;
  });
}

/** Throws SystemError: EEXIST where there is a clsact, or an `ingress`. */
export function addClsact(
  netlink: Pick<Netlink, 'request'>,
  index: number,
  attempted: string,
): void {
  const flags = FLAG.REQUEST | FLAG.ACK | FLAG.CREATE | FLAG.EXCLUSIVE;
  const kind = attribute(TCA.KIND, 'clsact');
  netlink.request(
    encodeMessage(RTM.NEWQDISC, flags, [tcmsg({ index, ...CLSACT }), kind]),
    attempted,
  );
}

/** With all filters on it.  Throws SystemError. */
export function removeClsact(
  netlink: Pick<Netlink, 'request'>,
  index: number,
  attempted: string,
): void {
  netlink.request(
    encodeMessage(RTM.DELQDISC, FLAG.REQUEST | FLAG.ACK, [tcmsg({ index, ...CLSACT })]),
    attempted,
  );
}

export interface NewFilter extends FilterPlace {
  programFd: number;
  name: string;
  /** In the place of the one that is there, without a moment between the two. */
  replace: boolean;
}

/** Throws SystemError. */
export function setFilter(
  netlink: Pick<Netlink, 'request'>,
  index: number,
  direction: Direction,
  f: NewFilter,
  attempted: string,
): void {
  const flags = FLAG.REQUEST | FLAG.ACK | FLAG.CREATE | (f.replace ? FLAG.REPLACE : FLAG.EXCLUSIVE);
  const options = [
    attribute(TCA_BPF.FD, f.programFd),
    attribute(TCA_BPF.NAME, f.name),
    attribute(TCA_BPF.FLAGS, DIRECT_ACTION),
  ];
  netlink.request(
    encodeMessage(RTM.NEWTFILTER, flags, [
      filterHeader(index, direction, f),
      attribute(TCA.KIND, 'bpf'),
      attribute(TCA.OPTIONS, options),
    ]),
    attempted,
  );
}

/** Throws SystemError. */
export function removeFilter(
  netlink: Pick<Netlink, 'request'>,
  index: number,
  direction: Direction,
  place: FilterPlace,
  attempted: string,
): void {
  netlink.request(
    encodeMessage(RTM.DELTFILTER, FLAG.REQUEST | FLAG.ACK, [
      filterHeader(index, direction, place),
      attribute(TCA.KIND, 'bpf'),
    ]),
    attempted,
  );
}

const filterHeader = (index: number, direction: Direction, p: FilterPlace): Uint8Array =>
  tcmsg({
    index,
    parent: PARENT[direction],
    handle: p.handle,
    info: ((p.priority << 16) | ETH_P_ALL) >>> 0,
  });

interface Header {
  index: number;
  handle?: number;
  parent?: number;
  info?: number;
}

/* struct tcmsg. */
function tcmsg({ index, handle = 0, parent = 0, info = 0 }: Header): Uint8Array {
  const bytes = new Uint8Array(TCMSG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setInt32(4, index, true);
  view.setUint32(8, handle, true);
  view.setUint32(12, parent, true);
  view.setUint32(16, info, true);
  return bytes;
}

interface Decoded {
  index: number;
  parent: number;
  kind: string;
  options: Uint8Array | undefined;
}

function decode({ payload }: NetlinkMessage): Decoded | undefined {
  if (payload.length < TCMSG_BYTES) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const attributes = decodeAttributes(payload.subarray(TCMSG_BYTES));
  const kind = attributes?.get(TCA.KIND);
  if (kind === undefined) return undefined;
  return {
    index: view.getInt32(4, true),
    parent: view.getUint32(12, true),
    kind: attributeText(kind),
    options: attributes?.get(TCA.OPTIONS),
  };
}

/* ENOENT: nothing at that place; EINVAL: no clsact to have it; ENODEV: no interface any more. */
function absentAsNone(ask: () => NetlinkMessage[]): NetlinkMessage[] {
  try {
    return ask();
  } catch (error) {
    if (error instanceof SystemError && ['ENOENT', 'EINVAL', 'ENODEV'].includes(error.code)) {
      return [];
    }
    throw error;
  }
}
