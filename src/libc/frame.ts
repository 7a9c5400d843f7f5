/*
 * Sends whole Ethernet frames on interfaces of this network namespace, with a firewall mark that
 * the boundary on a VM's tap reads: for the guest, or as if the guest had sent them.
 *
 * packet(7).  Protocol 0: it receives nothing.
 */
import {
  AF_PACKET,
  closeFd,
  openSocket,
  packetSockaddr,
  SOCK_RAW,
  sendTo,
  setMark,
} from './socket.js';

const ETHER_TYPE_AT = 12;

/** One socket for one mark.  Needs CAP_NET_RAW and CAP_NET_ADMIN. */
export class FrameSender {
  readonly #fd: number;

  constructor(mark: number) {
    this.#fd = openSocket(AF_PACKET, SOCK_RAW, 0);
    setMark(this.#fd, mark);
  }

  /** Throws SystemError: the interface is gone or down, or its queue is full. */
  send(ifindex: number, frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset);
    sendTo(this.#fd, frame, packetSockaddr(ifindex, view.getUint16(ETHER_TYPE_AT)));
  }

  close(): void {
    closeFd(this.#fd);
  }
}
