/*
 * Runs one of the tc programs on a frame given in memory: for test/bpf and the benchmarks.
 * BPF_PROG_TEST_RUN; <linux/bpf.h>, struct __sk_buff.
 */
import { clearLog, libbpfError, testRun } from './libbpf.js';

export interface TestOptions {
  mark?: number;
  /** The interface that the packet is said to be on; default: lo of this network namespace. */
  ifindex?: number;
  /** The interface by which it has come in, if this machine forwards it. */
  from?: number;
  /**
   * How often; the packet that comes out of one run goes into the next, so to measure a moved
   * flow its wire must be its kernel tuple.
   */
  repeat?: number;
}

/** `verdict`: 'pass' for TC_ACT_OK and _UNSPEC.  `packet`: the frame as it came out. */
export interface TestVerdict {
  verdict: 'pass' | 'drop' | 'stolen' | 'redirect' | number;
  packet: Uint8Array;
  durationNs: number;
  mark: number;
}

const VERDICTS = new Map<number, TestVerdict['verdict']>([
  [0xffffffff, 'pass'],
  [0, 'pass'],
  [2, 'drop'],
  [4, 'stolen'],
  [7, 'redirect'],
]);

/** Room for what a program may add: an option, at most 40 bytes. */
const GROWTH_BYTES = 256;
const SK_BUFF_SIZE = 192;
const SK_BUFF_MARK = 8;
const SK_BUFF_INGRESS_IFINDEX = 36;
const SK_BUFF_IFINDEX = 40;

/** Throws SystemError if the kernel refuses the frame (shorter than an Ethernet header). */
export function testProgram(fd: number, frame: Uint8Array, o: TestOptions): TestVerdict {
  const context = Buffer.alloc(SK_BUFF_SIZE);
  context.writeUInt32LE((o.mark ?? 0) >>> 0, SK_BUFF_MARK);
  context.writeUInt32LE(o.ifindex ?? 0, SK_BUFF_IFINDEX);
  context.writeUInt32LE(o.from ?? 0, SK_BUFF_INGRESS_IFINDEX);
  const contextOut = Buffer.alloc(SK_BUFF_SIZE);
  const dataOut = new Uint8Array(frame.length + GROWTH_BYTES);
  clearLog();
  const run = testRun(fd, { data: frame, dataOut, context, contextOut, repeat: o.repeat ?? 1 });
  if (run.error !== 0) throw libbpfError(`run a program on ${frame.length} bytes`, run.error);
  return {
    verdict: VERDICTS.get(run.returned) ?? run.returned,
    packet: dataOut.subarray(0, run.dataLength),
    durationNs: run.durationNs,
    mark: contextOut.readUInt32LE(SK_BUFF_MARK),
  };
}
