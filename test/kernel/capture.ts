/* The TCP packets that really go through an interface, both ways (packet(7)). */
import {
  AF_PACKET,
  bindSocket,
  closeFd,
  interfaceIndex,
  openSocket,
  packetSockaddr,
  receive,
  SOCK_DGRAM,
} from '../../src/libc/socket.js';
import { decodePacket, type Packet } from '../../src/wire/packet.js';

const ETH_P_ALL = 0x0003;

/** Opened in the namespace of the interface, before what is to be seen happens. */
export class Capture {
  #fd = openSocket(AF_PACKET, SOCK_DGRAM, 0);
  #packets: Packet[] = [];
  #buffer = new Uint8Array(70_000);

  constructor(interfaceName: string) {
    const index = interfaceIndex(interfaceName);
    if (index === undefined) throw new Error(`no interface ${interfaceName}`);
    bindSocket(this.#fd, packetSockaddr(index, ETH_P_ALL));
  }

  /** All TCP packets so far. */
  packets(): Packet[] {
    for (;;) {
      const length = receive(this.#fd, this.#buffer);
      if (length < 0) return this.#packets;
      const packet = decodePacket(this.#buffer.subarray(0, length));
      if (!('error' in packet)) this.#packets.push({ ...packet, payload: packet.payload.slice() });
    }
  }

  close(): void {
    closeFd(this.#fd);
  }
}
