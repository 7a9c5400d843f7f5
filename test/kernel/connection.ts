/*
 * A TCP connection from the vm to an echo server at aramis, seen from inside: what the kernel
 * knows of it, what the program sees, and packets injected into it.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import koffi from 'koffi';
import { until } from '../../src/lab/wait.js';
import { checked } from '../../src/libc/errno.js';
import type { RawSender } from '../../src/libc/raw.js';
import { setOption } from '../../src/libc/socket.js';
import { type Address, address } from '../../src/wire/address.js';
import { hostUnreachable } from '../../src/wire/icmp.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { type Seq, seq, seqAdd } from '../../src/wire/seq.js';

const libc = koffi.load('libc.so.6');
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int name, _Out_ void *value, void *length)',
);
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');

const SOL_SOCKET = 1;
const SO_ERROR = 4;
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const TCP_REPAIR = 19;
const TCP_REPAIR_QUEUE = 20;
const TCP_QUEUE_SEQ = 21;
const REPAIR_OFF_NO_PROBE = -1;
const RECEIVE_QUEUE = 1;
const SEND_QUEUE = 2;
const SIOCOUTQ = 0x5411;

export class Connection {
  readonly socket: Socket;
  readonly local: Address;
  readonly remote: Address;
  readonly errors: string[] = [];
  #received = '';

  private constructor(socket: Socket) {
    this.socket = socket;
    this.local = address(socket.localAddress ?? '');
    this.remote = address(socket.remoteAddress ?? '');
    socket.setNoDelay(true);
    socket.setEncoding('latin1').on('data', (text: string) => {
      this.#received += text;
    });
    socket.on('error', (error) => this.errors.push(error.message));
  }

  /** Connected, from this very address. */
  static async open(local: Address, remote: Address, port: number): Promise<Connection> {
    const socket = connect({ host: remote, port, localAddress: local });
    await once(socket, 'connect');
    return new Connection(socket);
  }

  get fd(): number {
    return (this.socket as unknown as { _handle: { fd: number } })._handle.fd;
  }

  write(text: string): void {
    this.socket.write(text, 'latin1');
  }

  /** Waits for a text to come back; in how many ms it did, undefined if not in time. */
  async echoed(text: string, boundMs: number): Promise<number | undefined> {
    const since = performance.now();
    try {
      await until(`'${text}' to come back`, () => this.#received.includes(text), boundMs);
    } catch {
      return undefined;
    }
    return performance.now() - since;
  }

  /** Whether a text arrives at the far end and comes back. */
  async works(text: string, boundMs = 3000): Promise<boolean> {
    this.write(text);
    return (await this.echoed(text, boundMs)) !== undefined;
  }

  /** What the kernel knows (struct tcp_info). */
  info() {
    const info = this.#option(IPPROTO_TCP, TCP_INFO, 104);
    return {
      state: info.readUInt8(0),
      retransmits: info.readUInt8(2),
      probes: info.readUInt8(3),
      backoff: info.readUInt8(4),
      rtoMs: info.readUInt32LE(8) / 1e3,
      mss: info.readUInt32LE(16),
      unacked: info.readUInt32LE(24),
      pathMtu: info.readUInt32LE(60),
    };
  }

  /** SO_ERROR, which reading clears. */
  error(): number {
    return this.#option(SOL_SOCKET, SO_ERROR, 4).readInt32LE();
  }

  /** SND.UNA and RCV.NXT, by way of TCP_REPAIR. */
  position(): { sndUna: Seq; rcvNxt: Seq } {
    const queue = (which: number) => {
      setOption(this.fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, which);
      return this.#option(IPPROTO_TCP, TCP_QUEUE_SEQ, 4).readUInt32LE();
    };
    setOption(this.fd, IPPROTO_TCP, TCP_REPAIR, 1);
    const written = queue(SEND_QUEUE);
    const received = queue(RECEIVE_QUEUE);
    setOption(this.fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE);
    const unacknowledged = Buffer.alloc(4);
    checked(ioctl(this.fd, SIOCOUTQ, unacknowledged), 'SIOCOUTQ');
    const sndUna = seqAdd(seq(written), -unacknowledged.readInt32LE());
    return { sndUna, rcvNxt: seq(received) };
  }

  /** A packet of this connection as the peer would send it: an ACK of all until `ack`. */
  fromPeer(ack: Seq, more: Partial<Packet> = {}): Uint8Array {
    return encodePacket({
      source: this.remote,
      sourcePort: this.socket.remotePort ?? 0,
      destination: this.local,
      destinationPort: this.socket.localPort ?? 0,
      ...{ flags: 'A', seq: this.position().rcvNxt, ack, window: 500, options: [] },
      payload: new Uint8Array(),
      ...more,
    });
  }

  /** A packet of this connection as we would have sent it, to be quoted in an ICMP error. */
  quoted(at: Seq): Uint8Array {
    return encodePacket({
      source: this.local,
      sourcePort: this.socket.localPort ?? 0,
      destination: this.remote,
      destinationPort: this.socket.remotePort ?? 0,
      ...{ flags: 'A', seq: at, ack: this.position().rcvNxt, window: 500, options: [] },
      payload: new Uint8Array(),
    });
  }

  /** RFC 6069: some messages that the peer cannot be reached, each undoes one backoff. */
  kick(raw: Pick<RawSender, 'toKernel'>, times: number): void {
    const message = hostUnreachable(this.quoted(this.position().sndUna), this.remote);
    for (let i = 0; i < times; i++) raw.toKernel(message);
  }

  close(): void {
    this.socket.resetAndDestroy();
  }

  #option(level: number, name: number, size: number): Buffer {
    const value = Buffer.alloc(size);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(size);
    checked(getsockopt(this.fd, level, name, value, length), `option ${level}/${name}`);
    return value;
  }
}
