/* Where the synchronization agent's packets go: those of our own kernel's flows by raw sockets,
 * those of a VM's by frames on its tap, as if its guest had sent them, or as if the network had.
 */

import type { Boundary, Place } from '../boundary/boundary.js';
import { SystemError } from '../libc/errno.js';
import { FrameSender } from '../libc/frame.js';
import type { RawSender } from '../libc/raw.js';
import type { Outlet } from '../sync/agent.js';
import type { Tuple } from '../wire/tuple.js';

const ETHER_TYPE = { 4: 0x0800, 6: 0x86dd } as const;
const ETHER_HEADER = 14;

/* Who answers the guest in the network's stead: locally administered, "TI". */
export const DAEMON_MAC = Uint8Array.of(0x02, 0x54, 0x49, 0, 0, 1);

/** Marks that the tap programs know; written to the settings by the daemon. */
export interface TapMarks {
  guest: number;
  network: number;
  verbatim: number;
}

/** Beside `mark` of the configuration, so that an operator has to keep one range free. */
export const tapMarks = (mark: number): TapMarks => ({
  guest: (mark + 1) >>> 0,
  network: (mark + 2) >>> 0,
  verbatim: (mark + 3) >>> 0,
});

/** Frames on taps. */
export class TapSender {
  readonly #guest: FrameSender;
  readonly #network: FrameSender;
  readonly #verbatim: FrameSender;

  constructor(marks: TapMarks) {
    this.#guest = new FrameSender(marks.guest);
    this.#network = new FrameSender(marks.network);
    this.#verbatim = new FrameSender(marks.verbatim);
  }

  /** As if the network had sent it.  All throw SystemError. */
  toGuest(tap: number, frame: Uint8Array): void {
    this.#guest.send(tap, frame);
  }

  /** As if the guest had sent it. */
  toNetwork(tap: number, frame: Uint8Array): void {
    this.#network.send(tap, frame);
  }

  /** The same, with addresses that are not to be translated. */
  toNetworkVerbatim(tap: number, frame: Uint8Array): void {
    this.#verbatim.send(tap, frame);
  }

  close(): void {
    for (const sender of [this.#guest, this.#network, this.#verbatim]) sender.close();
  }
}

export class DaemonOutlet implements Outlet {
  readonly #boundary: Pick<Boundary, 'flow' | 'place'>;
  readonly #raw: RawSender;
  readonly #taps: TapSender;

  constructor(o: { boundary: Pick<Boundary, 'flow' | 'place'>; raw: RawSender; taps: TapSender }) {
    this.#boundary = o.boundary;
    this.#raw = o.raw;
    this.#taps = o.taps;
  }

  /** Throws SystemError. */
  toWire(packet: Uint8Array, kernel: Tuple): void {
    const { tap } = kernel;
    if (tap === undefined) {
      this.#raw.toWire(packet);
      return;
    }
    const place = this.#boundary.place(tap);
    if (place === undefined) return;
    const nextHop = this.#nextHop(place, packet, kernel);
    if (nextHop !== undefined) {
      this.#taps.toNetwork(tap, etherFrame(nextHop, place.guestMac, packet));
    }
  }

  /** To the network with the addresses that are in it, whatever the guest's are here. */
  toWireVerbatim(packet: Uint8Array, tap: number): void {
    const place = this.#boundary.place(tap);
    const nextHop = place && gatewayMac(place, packet);
    if (place === undefined || nextHop === undefined) return;
    const frame = etherFrame(nextHop, place.guestMac, packet);
    trySend(() => this.#taps.toNetworkVerbatim(tap, frame));
  }

  toKernel(packet: Uint8Array, kernel: Tuple): void {
    const { tap } = kernel;
    if (tap === undefined) {
      this.#raw.toKernel(packet);
      return;
    }
    const place = this.#boundary.place(tap);
    if (place === undefined) return;
    const frame = etherFrame(place.guestMac, DAEMON_MAC, packet);
    trySend(() => this.#taps.toGuest(tap, frame));
  }

  /* At home without a lease nobody has told us the gateway, but the guest knows it. */
  #nextHop(place: Place, packet: Uint8Array, kernel: Tuple): Uint8Array | undefined {
    const gateway = gatewayMac(place, packet);
    if (gateway !== undefined) return gateway;
    const guests = this.#boundary.flow(kernel)?.nextHop;
    return guests !== undefined && isKnown(guests) ? guests : undefined;
  }
}

/** The tap's queue is full, or it is down or gone: as good as lost on the way. */
export function trySend(send: () => void): void {
  try {
    send();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  }
}

const versionOf = (packet: Uint8Array): 4 | 6 => ((packet[0] ?? 0) >> 4 === 6 ? 6 : 4);

function gatewayMac(place: Place, packet: Uint8Array): Uint8Array | undefined {
  const mac = versionOf(packet) === 6 ? place.gateway6Mac : place.gateway4Mac;
  return isKnown(mac) ? mac : undefined;
}

const isKnown = (mac: Uint8Array): boolean => mac.some((byte) => byte !== 0);

function etherFrame(target: Uint8Array, source: Uint8Array, packet: Uint8Array): Uint8Array {
  const frame = new Uint8Array(ETHER_HEADER + packet.length);
  frame.set(target);
  frame.set(source, 6);
  new DataView(frame.buffer).setUint16(12, ETHER_TYPE[versionOf(packet)]);
  frame.set(packet, ETHER_HEADER);
  return frame;
}
