/*
 * The loaded data plane as a bench: packets in, packets out, through BPF_PROG_TEST_RUN.
 *
 * Lines are in the notation of src/wire/notation.ts, their numbers relative to a view's ISNs.
 * Every packet that comes out is compared as a whole, with checksums summed anew.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HALF_SIZE, reasonName } from '../../src/boundary/abi.gen.js';
import { Boundary, type BoundaryEvent, type Placement } from '../../src/boundary/boundary.js';
import { pinDirectory } from '../../src/boundary/bpffs.js';
import { objectGet } from '../../src/boundary/libbpf.js';
import { BpfMap } from '../../src/boundary/map.js';
import type { TestOptions } from '../../src/boundary/test-run.js';
import { address } from '../../src/wire/address.js';
import { formatPacket, type NotationBase, parsePacketLine } from '../../src/wire/notation.js';
import { decodePacket, encodePacket, type Packet } from '../../src/wire/packet.js';
import { type Seq, seq, seqAdd } from '../../src/wire/seq.js';
import { type Tuple, tupleReverse } from '../../src/wire/tuple.js';
import { naiveSum, naiveTransportSum } from './model.js';

export type Direction = 'out' | 'in';
export type Family = 4 | 6;
export const FAMILIES: Family[] = [4, 6];

/** A connection as one side numbers it: lines are relative to these. */
export interface View {
  tuple: Tuple;
  iss: Seq;
  irs: Seq;
}

export interface Outcome {
  verdict: string;
  /** The names of all reasons that were counted, 'flow-opened' and the like as well. */
  counted: string[];
  frame: Uint8Array;
  mark: number;
}

/* BPF_PROG_TEST_RUN's device is lo: whatever is not for its address is for another host. */
const MACS = Uint8Array.of(0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2);
const ETHER_TYPE = { 4: [0x08, 0x00], 6: [0x86, 0xdd] } as const;
export const ETHER_HEADER = 14;

const OURS = { 4: address('192.0.2.10'), 6: address('2001:db8:1::10') };
const THEIRS = { 4: address('203.0.113.7'), 6: address('2001:db8:3::7') };
const NEW = { 4: address('198.51.100.10'), 6: address('2001:db8:2::10') };

let portsUsed = 0;

/** A tuple that no test before has used. */
export function freshTuple(f: Family): Tuple {
  portsUsed += 1;
  return { local: OURS[f], remote: THEIRS[f], localPort: 10000 + portsUsed, remotePort: 22 };
}

/** The same peer from our new address. */
export const movedTuple = (t: Tuple, f: Family): Tuple => ({
  ...t,
  local: NEW[f],
  localPort: 61000 + (t.localPort % 4000),
});

/** A pattern without symmetries, so that misplaced bytes show. */
const fill = (offset: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => ((offset + i) * 31 + 7) & 0xff);

const base = (view: View, direction: Direction): NotationBase =>
  direction === 'out' ? { seq: view.iss, ack: view.irs } : { seq: view.irs, ack: view.iss };

/** The packet that a line denotes: sent by us ('out') or by the peer ('in'). */
export function packetOf(view: View, direction: Direction, line: string): Packet {
  const t = direction === 'out' ? view.tuple : tupleReverse(view.tuple);
  return parsePacketLine(line, {
    source: t.local,
    sourcePort: t.localPort,
    destination: t.remote,
    destinationPort: t.remotePort,
    base: base(view, direction),
    fill,
  });
}

/** An Ethernet frame around an IP packet, padded as a network card would. */
export function frameOf(ip: Uint8Array, padTo = 0): Uint8Array {
  const frame = new Uint8Array(Math.max(padTo, ETHER_HEADER + ip.length));
  frame.set(MACS);
  frame.set(ETHER_TYPE[(ip[0] ?? 0) >> 4 === 6 ? 6 : 4], 12);
  frame.set(ip, ETHER_HEADER);
  return frame;
}

/** On a tap the directions are swapped: what the guest sends comes in there. */
export const programOf = (direction: Direction, placement: Placement): 'egress' | 'ingress' =>
  (direction === 'out') === (placement !== 'tap') ? 'egress' : 'ingress';

/** A loaded data plane, and the counters as they were. */
export class DataPlane {
  readonly boundary: Boundary;
  #runDir: string;
  #halves: BpfMap;
  #halvesDrawn = 0;
  #counters: Map<number, bigint>;
  /** Where the packets meet it from now on. */
  placement: Placement = 'host';
  /** The interface by which what goes out has come in, if it is forwarded. */
  from = 0;

  constructor(limits: { flows?: number; halfOpen?: number } = {}) {
    this.#runDir = mkdtempSync(join(tmpdir(), `tiflow-test-${process.pid}-`));
    // However the test ends: a pinned data plane outlives the process.
    process.on('exit', () => this.remove());
    const objectPath = process.env.TIFLOW_TEST_OBJECT;
    this.boundary = Boundary.open({
      runDir: this.#runDir,
      limits,
      ...(objectPath === undefined ? {} : { objectPath }),
    });
    this.boundary.writeSettings({
      enabled: 1,
      plainPeerTtlS: 600,
      rstSilentMs: 1000,
    });
    const path = join(pinDirectory(this.#runDir), 'halves');
    this.#halves = new BpfMap(objectGet(path), 'halves');
    this.#counters = this.boundary.counters();
  }

  remove(): void {
    Boundary.remove(this.#runDir);
    rmSync(this.#runDir, { recursive: true, force: true });
  }

  /** Stocks one pair of halves and returns it as the option that it will become. */
  stockHalf(): string {
    this.#halvesDrawn += 1;
    return this.stockHalfAgain();
  }

  /** Stocks the last pair once more, as chance might. */
  stockHalfAgain(): string {
    const half = Buffer.alloc(HALF_SIZE);
    half.writeUInt32BE(0x0a0b0000 + this.#halvesDrawn);
    half.writeUInt32BE(0x5eed0000 + this.#halvesDrawn, 4);
    half.writeUInt32BE(0xc0ffee00 + this.#halvesDrawn, 8);
    assert.ok(this.#halves.push(half));
    return `ti-open ${half.toString('hex', 0, 4)} key ${half.toString('hex', 4)}`;
  }

  /** Runs a frame through one of the programs: 'out' is what our kernel or the guest sends. */
  run(
    direction: Direction,
    frame: Uint8Array,
    o: TestOptions = {},
    placement: Placement = this.placement,
  ): Outcome {
    const program = programOf(direction, placement);
    const options = direction === 'out' ? { from: this.from, ...o } : o;
    const run = this.boundary.testRun(program, frame, options, placement);
    const { verdict, packet, mark } = run;
    const now = this.boundary.counters();
    const counted = [...now]
      .filter(([reason, count]) => count !== this.#counters.get(reason))
      .map(([reason]) => reasonName(reason));
    this.#counters = now;
    return { verdict: String(verdict), counted, frame: packet, mark };
  }

  /** Sends `line` and expects `expected`: a line, 'same', or a verdict and its reason. */
  expect(view: View, direction: Direction, line: string, expected: string, then = view): Outcome {
    const sent = packetOf(view, direction, line);
    return this.expectPacket(direction, sent, expected, then);
  }

  /** The same with a packet. */
  expectPacket(direction: Direction, sent: Packet, expected: string, then: View): Outcome {
    const frame = frameOf(encodePacket(sent));
    const outcome = this.run(direction, frame);
    if (/^(drop|stolen) /.test(expected)) {
      const [verdict = '', reason = ''] = expected.split(' ');
      assert.equal(outcome.verdict, verdict, `verdict on ${formatPacket(sent)}`);
      assert.ok(outcome.counted.includes(reason), `${reason} counted, not ${outcome.counted}`);
      return outcome;
    }
    assert.equal(outcome.verdict, 'pass', `verdict; counted ${outcome.counted}`);
    if (expected === 'same') {
      assert.deepEqual(outcome.frame, frame);
      return outcome;
    }
    const payload = sent.payload;
    assertFrame(
      outcome.frame,
      { ...packetOf(then, direction, expected), payload },
      base(then, direction),
    );
    return outcome;
  }

  /** All events that wait. */
  events(): BoundaryEvent[] {
    const events: BoundaryEvent[] = [];
    this.boundary.consumeEvents((event) => events.push(event));
    return events;
  }
}

/** Compares as text first, for a readable difference, then every byte. */
export function assertFrame(
  frame: Uint8Array,
  expected: Packet,
  relative: NotationBase = {},
): void {
  const ip = frame.subarray(ETHER_HEADER);
  const decoded = decodePacket(ip);
  if ('error' in decoded) assert.fail(`what came out is no packet: ${decoded.error}`);
  assert.equal(formatPacket(decoded, relative), formatPacket(expected, relative));
  assertChecksums(ip, expected);
  assert.deepEqual(frame, frameOf(encodePacket(expected), frame.length));
}

/** Sums the IPv4 header and the TCP segment with its pseudo-header, word by word. */
export function assertChecksums(
  ip: Uint8Array,
  ends: Pick<Packet, 'source' | 'destination'>,
): void {
  const four = (ip[0] ?? 0) >> 4 === 4;
  const view = new DataView(ip.buffer, ip.byteOffset, ip.length);
  const header = four ? ((ip[0] ?? 0) & 15) * 4 : 40;
  const end = four ? view.getUint16(2) : 40 + view.getUint16(4);
  if (four) assert.equal(naiveSum([ip.subarray(0, header)]), 0xffff, 'IPv4 header checksum');
  const sum = naiveTransportSum(ends, 6, ip.subarray(header, end));
  assert.equal(sum, 0xffff, 'TCP checksum');
}

export const SYN_OPTIONS = 'mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7';
export const SYN_ACK_OPTIONS = 'mss 1440,sackOK,TS val 200 ecr 100,nop,wscale 9';
export const PEER_OPEN = 'ti-open 1a1b1c1d key 1011121314151617';

/** A connection that we open, with TI_OPEN both ways; its view. */
export function openFlow(
  plane: DataPlane,
  f: Family,
  o: { iss?: number; irs?: number } = {},
): View {
  const view = { tuple: freshTuple(f), iss: seq(o.iss ?? 1000000), irs: seq(o.irs ?? 5000000) };
  const open = plane.stockHalf();
  const syn = `S 0:0(0) win 65535 <${SYN_OPTIONS}>`;
  plane.expect(view, 'out', syn, `S 0:0(0) win 65535 <${SYN_OPTIONS},${open}>`);
  const answer = `SA 0:0(0) ack 1 win 65160 <${SYN_ACK_OPTIONS},${PEER_OPEN}>`;
  plane.expect(view, 'in', answer, 'same');
  assert.ok(plane.boundary.flow(view.tuple), 'a flow');
  return view;
}

/** A connection that the peer opens, with TI_OPEN both ways; its view. */
export function acceptFlow(plane: DataPlane, f: Family): View {
  const view = acceptEmbryo(plane, f);
  plane.expect(view, 'in', 'A  1:1(0) ack 1 win 502', 'same');
  return view;
}

/** The same, without an answer to our SYN/ACK. */
export function acceptEmbryo(plane: DataPlane, f: Family, tuple = freshTuple(f)): View {
  const view = { tuple, iss: seq(7000000), irs: seq(0xfffffff0) };
  plane.expect(view, 'in', `S 0:0(0) win 65535 <${SYN_OPTIONS},${PEER_OPEN}>`, 'same');
  const open = plane.stockHalf();
  const answer = `SA 0:0(0) ack 1 win 65160 <${SYN_ACK_OPTIONS}`;
  plane.expect(view, 'out', `${answer}>`, `${answer},${open}>`);
  assert.ok(plane.boundary.flow(view.tuple), 'a flow');
  return view;
}

const SND_DELTA = 1000;
const RCV_DELTA = 5000;

export interface MovedFlow {
  kernel: View;
  wire: View;
  /** A line in the kernel view and what becomes of it in the wire view, or the other way. */
  out(line: string, expected: string): Outcome;
  in(line: string, expected: string): Outcome;
}

export interface MoveOptions {
  iss?: number;
  irs?: number;
  sndDelta?: number;
  rcvDelta?: number;
  sndBase?: number;
  rcvBase?: number;
  epoch?: number;
  unproven?: boolean;
  held?: boolean;
  responder?: boolean;
}

/** A flow that has moved to another address; bases are relative to the ISNs. */
export function moveFlow(plane: DataPlane, f: Family, o: MoveOptions = {}): MovedFlow {
  return remap(plane, o.responder ? acceptFlow(plane, f) : openFlow(plane, f, o), f, o);
}

/** Moves a flow, once more if it has moved before. */
export function remap(plane: DataPlane, kernel: View, f: Family, o: MoveOptions): MovedFlow {
  const wire = { ...kernel, tuple: movedTuple(kernel.tuple, f) };
  const { result } = plane.boundary.command({
    verb: 'map',
    kernel: kernel.tuple,
    mapping: {
      wire: wire.tuple,
      sndDelta: seq(o.sndDelta ?? SND_DELTA),
      rcvDelta: seq(o.rcvDelta ?? RCV_DELTA),
      sndBase: seqAdd(kernel.iss, o.sndBase ?? 1),
      rcvBase: seqAdd(kernel.irs, o.rcvBase ?? 1),
      redirect: 0,
    },
    epoch: o.epoch ?? 1,
    unproven: o.unproven ?? false,
    held: o.held ?? false,
  });
  assert.equal(result, 'ok');
  const expect = (direction: Direction, from: View, to: View) => (line: string, then: string) =>
    plane.expect(from, direction, line, then, to);
  return { kernel, wire, out: expect('out', kernel, wire), in: expect('in', wire, kernel) };
}
