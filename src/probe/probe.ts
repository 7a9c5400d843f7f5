/*
 * Asks a host, in the order in which each question makes sense, and judges the answers.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { family } from '../wire/address.js';
import { OPTIONS_BYTES_MAX, TI } from '../wire/option.js';
import { Prober, type Way } from './prober.js';
import {
  type KernelOptions,
  kernelOptions,
  optionBytes,
  padded,
  strangeSync,
  tiOpen,
} from './segments.js';
import { type Hop, lostAt, trace } from './trace.js';
import { type Answers, judge, needsSync, type Verdict } from './verdict.js';

/** As long as a SYN with the option is sent twice more: a program waits as long in connect(). */
const ANSWER_MS = 3000;

export interface ProbeOptions {
  /** offered in TI_OPEN; undefined: none is configured */
  psk: { keyId: number } | undefined;
  trace: boolean;
}

/** Bytes of option space that are left; TI_OPEN takes TI_OPEN_BYTES. */
export interface Room {
  syn: number;
  /** undefined: there was no SYN/ACK */
  synAck: number | undefined;
}

export const TI_OPEN_BYTES = TI.length.open;

export interface Probed {
  verdict: Verdict;
  answers: Answers;
  room: Room;
  hops: Hop[] | undefined;
}

/** `onProber`: told of what has to be closed if the process ends meanwhile.  Throws SystemError. */
export async function probe(
  way: Way,
  o: ProbeOptions,
  onProber: (prober: Prober) => void,
): Promise<Probed> {
  const prober = new Prober(way, randomBytes);
  onProber(prober);
  try {
    return await questions(prober, way, o);
  } finally {
    prober.close();
  }
}

async function questions(prober: Prober, way: Way, o: ProbeOptions): Promise<Probed> {
  const kernel = readKernelOptions(family(way.source));
  const ordinary = kernelOptions(kernel, randomBytes);
  const withOpen = [...ordinary, tiOpen(o.psk?.keyId ?? 0, randomBytes)];
  const [open, plain] = await Promise.all([
    prober.ask(withOpen, ANSWER_MS),
    prober.ask(padded(ordinary), ANSWER_MS),
  ]);
  const sync = needsSync(open, plain)
    ? await prober.ask(strangeSync(kernel, randomBytes), ANSWER_MS)
    : undefined;
  const answers = { open, plain, sync };
  const verdict = judge(answers, o.psk?.keyId);
  const hops = o.trace ? await trace(prober, withOpen, way.destination) : undefined;
  if (hops !== undefined && lostAt(hops) !== undefined) verdict.there = 'fails';
  return { verdict, answers, hops, room: roomOf(optionBytes(ordinary), answers) };
}

function roomOf(synBytes: number, { open, plain }: Answers): Room {
  const answered = [open, plain].find((answer) => answer.kind === 'syn-ack');
  return {
    syn: OPTIONS_BYTES_MAX - ((synBytes + 3) & ~3),
    synAck: answered?.kind === 'syn-ack' ? OPTIONS_BYTES_MAX - answered.optionBytes : undefined,
  };
}

/* /proc/sys/net follows the namespace of the process. */
function readKernelOptions(version: 4 | 6): KernelOptions {
  const isOn = (name: string): boolean =>
    readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim() !== '0';
  return {
    mss: version === 4 ? 1460 : 1440,
    timestamps: isOn('tcp_timestamps'),
    sack: isOn('tcp_sack'),
    wscale: isOn('tcp_window_scaling'),
  };
}
