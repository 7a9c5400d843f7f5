/* Where the synchronization agent's packets go: those of a VM's flows by frames on its tap, as if its
 * guest had sent them, or as if the network had; those of our own kernel's flows by raw sockets into
 * the kernel, and to the network by frames that the boundary takes to their next hop.
 *
 * Past netfilter, because what the boundary translates is not what netfilter sees: a SYN/ACK of ours
 * answers a SYN that was never there (a firewall drops it as INVALID), and each packet of ours would
 * be remembered as a connection of its own (three moves of 300 flows: 1,200 entries).
 */

import type { Boundary, Place } from '../../boundary/boundary.js';
import { SystemError } from '../../libc/errno.js';
import { FrameSender } from '../../libc/frame.js';
import type { RawSender } from '../../libc/raw.js';
import type { Outlet } from '../../sync/agent.js';
import { type Address, addressFromBytes } from '../../wire/address.js';
import type { Tuple } from '../../wire/tuple.js';
import type { Ends } from '../host/routes.js';
import type { TapMarks } from '../host/settings.js';
import { isForwarded } from '../view/flow-views.js';

const ETHER_TYPE = { 4: 0x0800, 6: 0x86dd } as const;
const ETHER_HEADER = 14;

/* Who answers the guest in the network's stead: locally administered, "TI". */
export const DAEMON_MAC = Uint8Array.of(0x02, 0x54, 0x49, 0, 0, 1);

/* The boundary asks the kernel for both. */
const NOBODY = new Uint8Array(6);

/** Frames on interfaces with a boundary. */
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

  /** As if the guest, or the own kernel, had sent it. */
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

export interface DaemonOutletOptions {
  boundary: Pick<Boundary, 'flow' | 'place'>;
  raw: Pick<RawSender, 'toWire' | 'toKernel' | 'toRetained'>;
  taps: Pick<TapSender, 'toGuest' | 'toNetwork' | 'toNetworkVerbatim'>;
  /**
   * The interface with a boundary by which the kernel would send between these; undefined: by
   * another one.
   */
  wayOf: (ends: Ends) => number | undefined;
  /** Whether an address of ours is gone, and kept for its flows. */
  isRetained: (local: Address) => boolean;
  /** Whether the kernel delivers to an address. */
  isLocal: (local: Address) => boolean;
}

export class DaemonOutlet implements Outlet {
  readonly #boundary: DaemonOutletOptions['boundary'];
  readonly #raw: DaemonOutletOptions['raw'];
  readonly #taps: DaemonOutletOptions['taps'];
  readonly #wayOf: DaemonOutletOptions['wayOf'];
  readonly #isRetained: DaemonOutletOptions['isRetained'];
  readonly #isLocal: DaemonOutletOptions['isLocal'];

  constructor(o: DaemonOutletOptions) {
    this.#boundary = o.boundary;
    this.#raw = o.raw;
    this.#taps = o.taps;
    this.#wayOf = o.wayOf;
    this.#isRetained = o.isRetained;
    this.#isLocal = o.isLocal;
  }

  /** Throws SystemError. */
  toWire(packet: Uint8Array, kernel: Tuple): void {
    const { tap } = kernel;
    if (tap === undefined) {
      const way = this.#wayOf(endsOf(packet));
      if (way === undefined) this.#raw.toWire(packet);
      else this.#taps.toNetwork(way, etherFrame(NOBODY, NOBODY, packet));
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
      this.#toOwnKernel(packet, kernel);
      return;
    }
    const place = this.#boundary.place(tap);
    if (place === undefined) return;
    const frame = etherFrame(place.guestMac, DAEMON_MAC, packet);
    trySend(() => this.#taps.toGuest(tap, frame));
  }

  /* To a host behind NAT leads.  What is for an address that is not here (a transparent proxy's) would
   * leave for its owner, whom it does not concern.
   */
  #toOwnKernel(packet: Uint8Array, kernel: Tuple): void {
    const flow = this.#boundary.flow(kernel);
    if (flow !== undefined && isForwarded(flow)) this.#raw.toKernel(packet);
    else if (this.#isRetained(kernel.local)) this.#raw.toRetained(packet);
    else if (flow === undefined || this.#isLocal(kernel.local)) this.#raw.toKernel(packet);
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

/* Of a packet that is ours. */
function endsOf(packet: Uint8Array): Ends {
  const [at, length] = versionOf(packet) === 6 ? [8, 16] : [12, 4];
  const [local, remote] = [at, at + length].map((from) =>
    addressFromBytes(packet.subarray(from, from + length)),
  );
  return { local, remote } as Ends;
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
