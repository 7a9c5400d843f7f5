/*
 * Sends whole Ethernet frames on interfaces of this network namespace, with a firewall mark that
 * the boundary reads: for the guest behind a tap, or as if that guest, or the own kernel, had sent
 * them.
 *
 * packet(7).  Protocol 0: it receives nothing.
 */
import {
  AF_PACKET,
  closeFd,
  openSocket,
  packetSockaddr,
  SO_SNDBUF,
  SOCK_RAW,
  SOL_SOCKET,
  sendTo,
  setMark,
  setOption,
} from './socket.js';

const ETHER_TYPE_AT = 12;

/* A move of a thousand flows sends several packets for each in one turn of the event loop. */
const SEND_BUFFER_BYTES = 4 << 20;

/** One socket for one mark.  Needs CAP_NET_RAW and CAP_NET_ADMIN. */
export class FrameSender {
  readonly #fd: number;

  constructor(mark: number) {
    this.#fd = openSocket(AF_PACKET, SOCK_RAW, 0);
    setMark(this.#fd, mark);
    setOption(this.#fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
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
