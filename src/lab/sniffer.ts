/**
 * What passes an interface of a host, as the network sees it: outside of the boundary, because
 * packet sockets hear before tc ingress and after tc egress. By the stock tcpdump; the pcap
 * format is that of its manual page pcap-savefile(5).
 */
import type { ChildProcess } from 'node:child_process';
import { decodePacket, type Packet } from '../wire/packet.js';
import type { Lab } from './lab.js';
import { LabError } from './namespace.js';
import type { Family, HostName } from './topology.js';
import { until } from './wait.js';

const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const ETHERNET_HEADER = 14;
/** All headers and the start of the payload. */
const SNAP_BYTES = 256;

/** Handshakes and resets. IPv6 has no name for TCP's flags: byte 13 behind 40 bytes of header. */
const HANDSHAKES: Record<Family, string> = {
  4: 'tcp[tcpflags] & (tcp-syn|tcp-rst) != 0',
  6: 'ip6 proto 6 and ip6[53] & 6 != 0',
};

export class Sniffer {
  readonly packets: Packet[] = [];
  readonly #child: ChildProcess;
  #pending: Buffer = Buffer.alloc(0);
  #headerRead = false;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.on('data', (chunk: Buffer) => this.#take(chunk));
  }

  /** Collects SYNs and RSTs on eth0 of the host from now on, or what a filter of tcpdump's wants. */
  static async start(
    lab: Lab,
    host: HostName,
    family: Family,
    filter = HANDSHAKES[family],
  ): Promise<Sniffer> {
    const argv = ['tcpdump', '-i', 'eth0', '-n', '-U', '--immediate-mode', '-s', `${SNAP_BYTES}`];
    const command = [...argv, '-w', '-', filter];
    const child = lab.spawn(host, 'tcpdump', command, ['ignore', 'pipe', 'pipe']);
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const sniffer = new Sniffer(child);
    await until('tcpdump to listen', () => {
      if (child.exitCode !== null) throw new LabError(`tcpdump on ${host}: ${said.trim()}`);
      return said.includes('listening on');
    });
    return sniffer;
  }

  /** Waits for a packet that came at or after position `since` of `packets`. */
  waitFor(what: string, wanted: (p: Packet) => boolean, since = 0, boundMs = 10_000) {
    return until(what, () => this.packets.slice(since).find(wanted), boundMs);
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }

  #take(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    if (!this.#headerRead && this.#pending.length < FILE_HEADER) return;
    let at = this.#headerRead ? 0 : FILE_HEADER;
    this.#headerRead = true;
    while (this.#pending.length >= at + RECORD_HEADER) {
      const length = this.#pending.readUInt32LE(at + 8);
      if (this.#pending.length < at + RECORD_HEADER + length) break;
      const start = at + RECORD_HEADER;
      this.#record(this.#pending.subarray(start + ETHERNET_HEADER, start + length));
      at = start + length;
    }
    this.#pending = this.#pending.subarray(at);
  }

  #record(bytes: Buffer): void {
    const packet = decodePacket(bytes, { truncated: true });
    if (!('error' in packet)) this.packets.push(packet);
  }
}
