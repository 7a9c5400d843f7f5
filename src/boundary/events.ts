/*
 * What the data plane tells the daemon, through the pinned ring buffers.
 *
 * Events that a dead daemon has not read are still there for the next one.
 */

import { lastErrno } from '../libc/errno.js';
import type { Tuple } from '../wire/tuple.js';
import { EVENT_AT, EVENT_SIZE, EVENT_TYPE, LIMIT, readTuple } from './abi.gen.js';
import {
  copyMemory,
  libbpfError,
  type Pointer,
  registerSample,
  ringAdd,
  ringConsume,
  ringEpollFd,
  ringFree,
  ringNew,
  unregister,
} from './libbpf.js';

/**
 * `at`: CLOCK_MONOTONIC, ns.  `packet`: from behind the Ethernet header on, at most the headers;
 * of guest events as much as DHCP needs.
 */
export interface BoundaryEvent {
  type:
    | 'packet'
    | 'opened'
    | 'ended'
    | 'proven'
    | 'rst'
    | 'guest'
    | 'stranded'
    | 'stalled'
    | 'revived'
    | 'stuck'
    | 'knock'
    | 'in-use';
  ifindex: number;
  at: bigint;
  tuple: Tuple;
  etherType: number;
  /** Of a guest event: the guest sent it, not the network. */
  fromGuest: boolean;
  packet: Uint8Array;
}

const TYPES = new Map<number, BoundaryEvent['type']>([
  [EVENT_TYPE.PACKET, 'packet'],
  [EVENT_TYPE.OPENED, 'opened'],
  [EVENT_TYPE.ENDED, 'ended'],
  [EVENT_TYPE.PROVEN, 'proven'],
  [EVENT_TYPE.RST, 'rst'],
  [EVENT_TYPE.GUEST, 'guest'],
  [EVENT_TYPE.STRANDED, 'stranded'],
  [EVENT_TYPE.STALLED, 'stalled'],
  [EVENT_TYPE.REVIVED, 'revived'],
  [EVENT_TYPE.STUCK, 'stuck'],
  [EVENT_TYPE.KNOCK, 'knock'],
  [EVENT_TYPE.IN_USE, 'in-use'],
]);

/** Reads the ring buffers as one. */
export class EventReader {
  readonly fd: number;
  #ring: Pointer;
  #callback: Pointer;
  #bytes = new Uint8Array(EVENT_SIZE);
  #pending: BoundaryEvent[] = [];

  constructor([first = -1, ...others]: number[]) {
    this.#callback = registerSample((_context, bytes, length) => this.#take(bytes, Number(length)));
    const ring = ringNew(first, this.#callback, null, null);
    if (ring === null) throw libbpfError('open the ring buffer of events', lastErrno());
    this.#ring = ring;
    for (const fd of others) {
      const error = ringAdd(ring, fd, this.#callback, null);
      if (error < 0) throw libbpfError('open another ring buffer of events', error);
    }
    this.fd = ringEpollFd(ring);
  }

  /** Calls back with each event that is waiting, oldest first; how many. */
  consume(onEvent: (event: BoundaryEvent) => void): number {
    const error = ringConsume(this.#ring);
    if (error < 0) throw libbpfError('read events', error);
    const events = this.#pending.sort((a, b) => Number(a.at - b.at));
    this.#pending = [];
    for (const event of events) onEvent(event);
    return events.length;
  }

  close(): void {
    ringFree(this.#ring);
    unregister(this.#callback);
  }

  /* Only copies: what handles an event may throw, and libbpf's frames lie between. */
  #take(bytes: Pointer, length: number): number {
    if (length < LIMIT.EVENT_HEAD) return 0;
    copyMemory(this.#bytes, bytes, Math.min(length, EVENT_SIZE));
    const event = decode(this.#bytes);
    if (event !== undefined) this.#pending.push(event);
    return 0;
  }
}

function decode(bytes: Uint8Array): BoundaryEvent | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const type = TYPES.get(view.getUint32(EVENT_AT.type, true));
  if (type === undefined) return undefined;
  const length = view.getUint32(EVENT_AT.length, true);
  return {
    type,
    ifindex: view.getUint32(EVENT_AT.ifindex, true),
    at: view.getBigUint64(EVENT_AT.at, true),
    tuple: readTuple(view, EVENT_AT.tuple),
    etherType: view.getUint16(EVENT_AT.etherType, true),
    fromGuest: view.getUint8(EVENT_AT.fromGuest) !== 0,
    packet: bytes.slice(EVENT_AT.packet, EVENT_AT.packet + length),
  };
}
