/*
 * The isolation boundary as the control plane sees it: flows, wires, settings, events of the
 * pinned data plane, and on which interfaces it sits.
 *
 * Not for decisions about moves (src/sync) and not for packets (bpf/).  Every change of a flow
 * is one command, see command.ts.  Sequence numbers are in kernel view.
 */
import { randomBytes } from 'node:crypto';
import { ERRNO, SystemError } from '../libc/errno.js';
import { closeFd } from '../libc/socket.js';
import { type Seq, seq } from '../wire/seq.js';
import type { Tuple } from '../wire/tuple.js';
import {
  encodeFlow,
  encodePlace,
  encodePlain,
  encodeTuple,
  encodeWire,
  type Flow,
  HALF_SIZE,
  type Place,
  type Plain,
  REASON,
  ROLE,
  readFlow,
  readPlace,
  readPlain,
  readSettings,
  readTuple,
  readWire,
  type Settings,
  WIRE_STATE,
  type Wire,
  writeSettings,
} from './abi.gen.js';
import { isLost, type TcPrograms } from './attach.js';
import { isBpffs, pinDirectory, umountBpffs } from './bpffs.js';
import { type Command, type CommandResult, runCommand } from './command.js';
import { type BoundaryEvent, EventReader } from './events.js';
import { type Attached, detachAll, Hooks, type Placement, pairsOf, tcPrograms } from './hooks.js';
import { possibleCpus, programInfo } from './libbpf.js';
import {
  type DataPlane,
  DEFAULT_OBJECT,
  isPinned,
  isPinnedHere,
  type Limits,
  openDataPlane,
  pinAgain,
} from './load.js';
import { BPF_NOEXIST } from './map.js';
import { openAnyPrograms, openFormer, unpinPrograms } from './programs.js';
import { type TestOptions, type TestVerdict, testProgram } from './test-run.js';
import type { Filter } from './traffic-control.js';

export type { Flow, Mapping, Place, Plain, Settings, Wire } from './abi.gen.js';
export type { Command, CommandResult } from './command.js';
export type { BoundaryEvent } from './events.js';
export type { Attached, Placement } from './hooks.js';

export interface OpenOptions {
  runDir: string;
  /** Map sizes if the data plane is loaded anew; adopted ones keep theirs. */
  limits?: Limits;
  objectPath?: string;
}

const RINGS = ['events', 'news', 'guests'] as const;
const KEY_ZERO = new Uint8Array(4);

/**
 * A wire that is being set up: by us, or by the other end.  `ack`: of a packet that follows our
 * SYN/ACK; whatever else comes on a pending wire is somebody else's.
 */
export type NewWire =
  | { kernel: Tuple; state: 'syncing' }
  | { kernel: Tuple; state: 'pending'; ack: Seq };

/** Handles on one data plane. */
export class Boundary {
  readonly eventsFd: number;
  #plane: DataPlane;
  #programs: Record<Placement, TcPrograms>;
  #events: EventReader;
  #hooks: Hooks;

  /**
   * Adopts what is pinned under `runDir`, or loads and pins it.  Where programs of another object
   * are pinned, those of this one take their place, under live flows.  Throws SystemError.
   */
  static open(o: OpenOptions): Boundary {
    const plane = openDataPlane(o.runDir, o.objectPath ?? DEFAULT_OBJECT, o.limits ?? {});
    const boundary = new Boundary(plane);
    boundary.#replaceFormer(pinDirectory(o.runDir));
    return boundary;
  }

  /** Whether a boundary is pinned there. */
  static exists(runDir: string): boolean {
    return isPinned(runDir);
  }

  /**
   * Detaches it everywhere, unpins it, unmounts its bpffs: leaves nothing behind, also of a boundary
   * whose pins are lost.
   */
  static remove(runDir: string): void {
    const directory = pinDirectory(runDir);
    const ids = new Set<number>();
    if (isBpffs(directory) && isPinned(runDir)) {
      for (const { programs } of openAnyPrograms(directory)) {
        for (const fd of Object.values(programs)) {
          ids.add(programInfo(fd).id);
          closeFd(fd);
        }
      }
    }
    const isOurs = (filter: Filter) => ids.has(filter.programId) || isLost(filter);
    detachAll(isOurs);
    umountBpffs(directory);
    // Of programs that were in no hands but in these pins.
    detachAll(isLost);
  }

  private constructor(plane: DataPlane) {
    this.#plane = plane;
    this.#programs = tcPrograms(plane.programs);
    this.#events = new EventReader(RINGS.map((name) => plane.maps[name].fd));
    this.eventsFd = this.#events.fd;
    this.#hooks = new Hooks(this.#programs);
  }

  /** Which object its programs are of. */
  get object(): string {
    return this.#plane.object;
  }

  /** Why they are not of the object that is built; undefined: they are. */
  get refused(): unknown {
    return this.#plane.refused;
  }

  /** As Hooks.attach. */
  attach(interfaceName: string, placement: Placement = 'host'): void {
    this.#hooks.attach(interfaceName, placement);
  }

  /** As Hooks.detach. */
  detach(interfaceName: string, placement?: Placement): void {
    this.#hooks.detach(interfaceName, placement);
  }

  /** As Hooks.attached. */
  attached(placement?: Placement): string[] {
    return this.#hooks.attached(placement);
  }

  /** As Hooks.everywhere. */
  everywhere(): Attached[] {
    return this.#hooks.everywhere();
  }

  /** As Hooks.look. */
  look(index?: number): void {
    this.#hooks.look(index);
  }

  /** Whether the next daemon will find it under `runDir`. */
  isPinned(runDir: string): boolean {
    return isPinnedHere(runDir, this.#plane);
  }

  /** Pins it once more where its pins were lost.  Throws SystemError. */
  pinAgain(runDir: string): void {
    pinAgain(runDir, this.#plane);
  }

  /** Closes handles only: what is pinned and attached goes on. */
  close(): void {
    this.#events.close();
    this.#hooks.close();
    for (const map of Object.values(this.#plane.maps)) map.close();
    for (const fd of Object.values(this.#plane.programs)) closeFd(fd);
  }

  /** The flow of a kernel tuple. */
  flow(kernel: Tuple): Flow | undefined {
    const view = this.#plane.maps.flows.get(encodeTuple(kernel));
    return view && readFlow(view);
  }

  /** All flows by kernel tuple, in no order.  Those that come or go meanwhile may be missed. */
  flows(): Array<[Tuple, Flow]> {
    const found: Array<[Tuple, Flow]> = [];
    this.#plane.maps.flows.forEach((keys, keyAt, values, valueAt) => {
      found.push([readTuple(keys, keyAt), readFlow(values, valueAt)]);
    });
    return found;
  }

  /** The kernel tuple of the flow whose TIFID half of ours this is. */
  tupleOfHalf(half: number): Tuple | undefined {
    const view = this.#plane.maps.tifids.get(halfKey(half));
    return view && readTuple(view);
  }

  /** What is known of a wire tuple. */
  wire(t: Tuple): Wire | undefined {
    const view = this.#plane.maps.wires.get(encodeTuple(t));
    return view && readWire(view);
  }

  /** All wires: of flows, of flows before their last move, and those that are being set up. */
  wires(): Array<[Tuple, Wire]> {
    const found: Array<[Tuple, Wire]> = [];
    this.#plane.maps.wires.forEach((keys, keyAt, values, valueAt) => {
      found.push([readTuple(keys, keyAt), readWire(values, valueAt)]);
    });
    return found;
  }

  /** Notes a wire that is being set up.  Throws if it carries a flow already, or no room. */
  setWire(t: Tuple, w: NewWire): void {
    this.#refuseActive(t, 'set');
    const pending = { kernel: w.kernel, ack: seq(0), state: WIRE_STATE.PENDING };
    const syncing = { ...pending, state: WIRE_STATE.SYNCING };
    if (!this.#putWire(t, w.state === 'syncing' ? syncing : { ...pending, ack: w.ack })) {
      throw new SystemError('note a wire', ERRNO.ENOSPC, { hint: 'map wires is full' });
    }
  }

  /** Forgets a wire that is being set up.  Throws if it carries a flow. */
  deleteWire(t: Tuple): void {
    this.#refuseActive(t, 'delete');
    this.#plane.maps.wires.delete(encodeTuple(t));
  }

  /** Forgets a wire that no flow is on any more. */
  forgetWire(t: Tuple): void {
    this.#plane.maps.wires.delete(encodeTuple(t));
  }

  /** Puts a flow of another machine into the tables; false: its name is taken, or no room. */
  adopt(kernel: Tuple, flow: Flow): boolean {
    const { flows, tifids } = this.#plane.maps;
    const half = halfKey(localHalf(flow));
    if (!tifids.set(half, encodeTuple(kernel), BPF_NOEXIST)) return false;
    if (!flows.set(encodeTuple(kernel), encodeFlow(flow), BPF_NOEXIST)) {
      tifids.delete(half);
      return false;
    }
    const mapping = flow.active === 0 ? undefined : flow.mapping[flow.active - 1];
    if (mapping !== undefined) {
      this.#putWire(mapping.wire, { kernel, ack: seq(0), state: WIRE_STATE.ACTIVE });
    }
    return true;
  }

  /** Whether this connection was seen to open as a legacy one. */
  isPlain(t: Tuple): boolean {
    return this.#plane.maps.plain.get(encodeTuple(t)) !== undefined;
  }

  /** Notes that a connection is legacy, as of `since` (ns). */
  setPlain(t: Tuple, plain: Plain): void {
    this.#plane.maps.plain.set(encodeTuple(t), encodePlain(plain));
  }

  /** Forgets why a connection is legacy. */
  deletePlain(t: Tuple): void {
    this.#plane.maps.plain.delete(encodeTuple(t));
  }

  /** Where the VM behind this tap is; undefined: not told. */
  place(tap: number): Place | undefined {
    const view = this.#plane.maps.places.get(u32(tap));
    return view && readPlace(view);
  }

  /** Tells where the VM behind this tap is.  Throws SystemError if there are too many. */
  setPlace(tap: number, place: Place): void {
    if (!this.#plane.maps.places.set(u32(tap), encodePlace(place))) {
      throw new SystemError('note the place of a VM', ERRNO.ENOSPC, { hint: 'map places is full' });
    }
  }

  /** Forgets a tap: what passes it is not looked at any more. */
  deletePlace(tap: number): void {
    this.#plane.maps.places.delete(u32(tap));
  }

  /** The taps that have a place, by interface index. */
  taps(): number[] {
    const found: number[] = [];
    this.#plane.maps.places.forEach((keys, at) => {
      found.push(keys.getUint32(at, true));
    });
    return found;
  }

  /** Changes a flow, all or nothing. */
  command(c: Command): CommandResult {
    return runCommand(this.#plane.programs.boundary_command, c);
  }

  /** How often each reason occurred, over all CPUs, since the data plane was loaded. */
  counters(): Map<number, bigint> {
    const length = 8 * possibleCpus();
    const sums = new Map<number, bigint>();
    for (let reason = 0; reason < REASON.REASON_END; reason++) {
      const view = this.#plane.maps.counters.get(u32(reason), length);
      let sum = 0n;
      for (let at = 0; view !== undefined && at < length; at += 8)
        sum += view.getBigUint64(at, true);
      sums.set(reason, sum);
    }
    return sums;
  }

  /** Legacy connections and why; the oldest are forgotten when there are many. */
  plain(): Array<[Tuple, Plain]> {
    const found: Array<[Tuple, Plain]> = [];
    this.#plane.maps.plain.forEach((keys, keyAt, values, valueAt) => {
      found.push([readTuple(keys, keyAt), readPlain(values, valueAt)]);
    });
    return found;
  }

  /** Fills the stock of random TIFID and key halves; how many were added. */
  stockHalves(): number {
    const { halves, tifids } = this.#plane.maps;
    const drawn = new Set<number>();
    for (let added = 0; ; ) {
      const random = randomBytes(256 * HALF_SIZE);
      for (let at = 0; at < random.length; at += HALF_SIZE) {
        const half = random.readUInt32BE(at);
        if (half === 0 || drawn.has(half) || tifids.get(halfKey(half)) !== undefined) continue;
        if (!halves.push(random.subarray(at, at + HALF_SIZE))) return added;
        drawn.add(half);
        added += 1;
      }
    }
  }

  /** Changes some settings; the programs see them with the next packet. */
  writeSettings(s: Partial<Settings>): void {
    const { settings } = this.#plane.maps;
    const view = settings.get(KEY_ZERO) ?? new DataView(new ArrayBuffer(settings.valueSize));
    // The version belongs to the loader: it says what the pinned maps are, not what we are.
    const { abiVersion } = readSettings(view);
    writeSettings(view, { ...readSettings(view), ...s, abiVersion });
    settings.set(KEY_ZERO, new Uint8Array(view.buffer));
  }

  /** The settings in force. */
  settings(): Settings {
    const { settings } = this.#plane.maps;
    return readSettings(
      settings.get(KEY_ZERO) ?? new DataView(new ArrayBuffer(settings.valueSize)),
    );
  }

  /** Calls back with each waiting event; how many.  To be called when eventsFd is readable. */
  consumeEvents(onEvent: (e: BoundaryEvent) => void): number {
    return this.#events.consume(onEvent);
  }

  /** BPF_PROG_TEST_RUN on a frame, Ethernet header included: for tests and benchmarks. */
  testRun(
    program: keyof TcPrograms,
    frame: Uint8Array,
    o: TestOptions = {},
    placement: Placement = 'host',
  ): TestVerdict {
    return testProgram(this.#programs[placement][program], frame, o);
  }

  /* On each interface without a moment between the two; what has no successor stays. */
  #replaceFormer(directory: string): void {
    try {
      for (const { object, programs } of openFormer(directory, this.object)) {
        for (const [placement, pair] of pairsOf(programs)) this.#hooks.replace(placement, pair);
        for (const fd of Object.values(programs)) closeFd(fd);
        unpinPrograms(directory, object);
      }
    } catch (error) {
      this.#plane.refused = error;
    }
  }

  #putWire(wire: Tuple, entry: Wire): boolean {
    return this.#plane.maps.wires.set(encodeTuple(wire), encodeWire(entry));
  }

  #refuseActive(t: Tuple, verb: string): void {
    if (this.wire(t)?.state !== WIRE_STATE.ACTIVE) return;
    throw new Error(`cannot ${verb} a wire that carries a flow: use a command`);
  }
}

const localHalf = (flow: Flow): number =>
  (flow.role === ROLE.INITIATOR ? flow.initiator : flow.responder).tifidHalf;

function u32(n: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(n);
  return bytes;
}

/** TIFID halves are kept as on the wire. */
function halfKey(half: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(half >>> 0);
  return bytes;
}
