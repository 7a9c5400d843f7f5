/*
 * A packet socket on one interface that hears a few kinds of frames only (packet(7),
 * Documentation/networking/filter.rst).
 *
 * Each frame of the interface would wake us otherwise.  The filter is there before the socket is
 * bound, so nothing else is ever queued.
 */
import koffi from 'koffi';
import {
  AF_PACKET,
  bindSocket,
  closeFd,
  openSocket,
  packetSockaddr,
  SOCK_RAW,
  SOL_SOCKET,
  setOption,
  setOptionBytes,
} from './socket.js';

const SO_ATTACH_FILTER = 26;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const ETH_P_ALL = 0x0003;

/** One instruction of classic BPF: operation, jumps if true and if false, operand. */
export type FilterLine = readonly [code: number, jt: number, jf: number, k: number];

/** Opens one that gets what comes in and passes `filter`.  Throws SystemError. */
export function openPacketSocket(ifindex: number, filter: readonly FilterLine[]): number {
  const fd = openSocket(AF_PACKET, SOCK_RAW, 0);
  try {
    attachFilter(fd, filter);
    setOption(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    bindSocket(fd, packetSockaddr(ifindex, ETH_P_ALL));
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/* struct sock_fprog: how many, then where the struct sock_filter are. */
function attachFilter(fd: number, filter: readonly FilterLine[]): void {
  const lines = Buffer.alloc(filter.length * 8);
  for (const [at, [code, jt, jf, k]] of filter.entries()) {
    lines.writeUInt16LE(code, at * 8);
    lines.writeUInt8(jt, at * 8 + 2);
    lines.writeUInt8(jf, at * 8 + 3);
    lines.writeUInt32LE(k, at * 8 + 4);
  }
  const program = Buffer.alloc(16);
  program.writeUInt16LE(filter.length, 0);
  program.writeBigUInt64LE(koffi.address(lines), 8);
  setOptionBytes(fd, SOL_SOCKET, SO_ATTACH_FILTER, program);
}
