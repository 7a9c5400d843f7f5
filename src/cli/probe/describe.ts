/* What a probe found, in words: one line each for the way there, the way back, the host, the room
 * in the header, this machine, and what a move would do.
 */

import { type Probed, type Room, TI_OPEN_BYTES } from '../../probe/probe.js';
import { type Hop, lostAt } from '../../probe/trace.js';
import type { Passage, ProbeReason, Verdict } from '../../probe/verdict.js';
import { type Check, fail, ok, warn } from '../doctor/check.js';
import { alignColumns } from '../table.js';
import type { Target } from './target.js';

/** This machine's own end. */
export interface Here {
  interface: string;
  /** by the boundary of a running daemon */
  protected: boolean;
}

export function describe({ host, port }: Target, probed: Probed, here: Here): Check[] {
  const { verdict, room } = probed;
  return [
    describePassage('there', `the option on the way to ${host}`, verdict.there, probed.hops),
    describePassage('back', `the option on the way back`, verdict.back, undefined),
    describePeer(host, verdict),
    ...describeRoom(room),
    here.protected
      ? ok('here', `tiflow protects ${here.interface}`)
      : warn('here', `tiflow does not protect ${here.interface}`, `tiflow up ${here.interface}`),
    describeMove(`${host} port ${port}`, probed),
  ];
}

/** What nobody can find out from this end alone. */
export const unknownFromHere = (host: string): string[] => [
  'whether the path from a new address is like this one',
  `whether ${host} could reach this machine if ${host} moved (\`tiflow probe\` there tells)`,
];

function describePassage(
  id: string,
  what: string,
  passage: Passage,
  hops: readonly Hop[] | undefined,
): Check {
  const lost = lostAt(hops ?? []);
  if (lost !== undefined) {
    const { before, at } = lost;
    const from = before === undefined ? 'this machine' : `${before.address} (hop ${before.hop})`;
    const text = `${what} is ${at.option} at ${at.address} (hop ${at.hop})`;
    return fail(id, text, `look at what is behind ${from}, and at ${from} itself`);
  }
  if (passage === 'passes') return ok(id, `${what} passes`);
  if (passage === 'fails') return { ...fail(id, `${what} is lost`, ''), advice: null };
  return { ...warn(id, `${what}: cannot be told`, ''), advice: null };
}

function describePeer(host: string, { peer, reason }: Verdict): Check {
  if (peer === 'tiflow') return ok('host', `${host} runs tiflow`);
  if (peer === 'plain') {
    return fail(
      'host',
      `${host} sends back what it is sent, and has no tiflow`,
      'install it there',
    );
  }
  if (reason === 'peer-plain') {
    return fail('host', `${host} does not answer as one with tiflow`, 'run `tiflow status` there');
  }
  return warn('host', `whether ${host} runs tiflow cannot be told`, 'run `tiflow status` there');
}

function describeRoom({ syn, synAck }: Room): Check[] {
  const check = (id: string, what: string, left: number): Check => {
    const text = `${left} of 40 bytes of options are left in ${what}, ${TI_OPEN_BYTES} are needed`;
    return left >= TI_OPEN_BYTES ? ok(id, text) : fail(id, text, 'the connection stays plain TCP');
  };
  const back = synAck === undefined ? [] : [check('room.back', 'its SYN/ACK', synAck)];
  return [check('room.there', 'our SYN', syn), ...back];
}

/** What would happen on a move, why, and what to do. */
const REASONS: Record<ProbeReason, { text: string; advice: string }> = {
  reflected: {
    text: 'plain TCP: it reflects options that it does not know',
    advice: 'install tiflow there',
  },
  'no-psk': {
    text: 'plain TCP: a pre-shared key is required here, and there is none in common',
    advice: 'configure the same key at both ends',
  },
  'no-option-back': {
    text: 'plain TCP: it has our option, and its own does not come back',
    advice: 'removed on the way back, or refused there: `tiflow status` there counts why',
  },
  'peer-plain': {
    text: 'plain TCP: no tiflow there, or the option is removed on the way there',
    advice: 'tiflow status there; --trace shows where routers still see the option',
  },
  'syn-ack-lost': {
    text: 'plain TCP, 3 s late: SYN/ACKs with the option are lost on the way back',
    advice: 'something near that end or this drops unknown TCP options: let kind 253 pass',
  },
  'syn-lost': {
    text: 'plain TCP, 3 s late: SYNs with the option are lost on the way there',
    advice: 'something on the way drops unknown TCP options; --trace shows how far they get',
  },
  'syn-refused': {
    text: 'plain TCP, or refused: SYNs with the option are answered by a reset',
    advice: 'something on the way refuses unknown TCP options; --trace shows how far they get',
  },
  closed: {
    text: 'cannot be told: nothing listens on that port',
    advice: 'name a port on which something does: HOST:PORT',
  },
  unreachable: { text: 'cannot be told: unreachable', advice: 'ping and traceroute' },
  'no-answer': {
    text: 'cannot be told: no answer, with the option or without',
    advice: 'the host is down, or a firewall drops SYNs to that port: try another',
  },
};

function describeMove(where: string, { verdict, answers }: Probed): Check {
  if (verdict.reason === null) return ok('move', `new connections to ${where} can move`);
  const { text, advice } = REASONS[verdict.reason];
  const told = [answers.open, answers.plain].find((answer) => answer.kind === 'unreachable');
  const who = told?.kind === 'unreachable' ? ` (${told.from} says: ${told.why})` : '';
  const level = verdict.movable === null ? warn : fail;
  return level('move', `${where}: ${text}${who}`, advice);
}

const OPTION_AT_HOP: Record<Hop['option'], string> = {
  there: 'as it was sent',
  changed: 'CHANGED',
  gone: 'GONE',
  'not-quoted': '? (quotes too little)',
  end: 'answered',
  silent: '',
  refused: 'refused',
};

export function formatHops(hops: readonly Hop[]): string[] {
  if (hops.length === 0) return [];
  const rows = hops.map((hop) => [
    String(hop.hop).padStart(4),
    hop.address ?? '*',
    hop.ms === null ? '' : `${hop.ms.toFixed(1)} ms`,
    OPTION_AT_HOP[hop.option],
  ]);
  return alignColumns([[' hop', 'address', 'time', 'option'], ...rows]);
}
