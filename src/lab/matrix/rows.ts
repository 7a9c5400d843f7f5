/**
 * The rows of the middlebox matrix: what stands on the path, and what has to become of a
 * connection when its server or its client moves. docs/MIDDLEBOXES.md is generated from them.
 */
import { readFileSync } from 'node:fs';
import { parseImpairment } from '../impairment.js';
import type { Lab, LabOptions } from '../lab.js';
import { LabError } from '../namespace.js';
import type { Stage } from '../stage.js';
import type { WireSettings } from '../wire.js';
import {
  atBothEnds,
  denyInbound,
  dropInvalid,
  type End,
  idleCounter,
  mangle,
  masquerade,
  narrowPorthos,
  synproxy,
} from './boxes.js';
import type { Column, Outcome } from './cell.js';
import { checkMemory } from './memory.js';

export interface Row {
  name: string;
  /** the middlebox, in a few words */
  summary: string;
  /** why the outcome is what it is, where that is not plain to see */
  why?: string;
  /** of the userspace wire, where the kernel has no such box */
  wire?: Omit<WireSettings, 'seed'>;
  settings?: LabOptions['settings'];
  /** puts the box up; `ends`: only where the columns are played apart */
  build?(lab: Lab, ends: Record<Column, End>): void;
  /** where the box is depends on which end is the client: each column in a lab of its own */
  apart?: true;
  /** what of the box has not acted, in words, if its rules do not tell; [] is well */
  idle?(lab: Lab): string[];
  /** the ends that are dialled at the address of their NAT */
  natted?: readonly Column[];
  /** more to be seen before the move */
  before?(stage: Stage): Promise<void>;
  expected: Record<Column, Outcome>;
}

/** The wire's log has a line for each connection: four transfers, each before and after. */
function notRewritten(lab: Lab): string[] {
  const log = readFileSync(`${lab.directory}/router/wire.log`, 'utf8');
  const rewritten = log.split('\n').filter((line) => line.startsWith('rewrites'));
  return rewritten.length >= 8 ? [] : [`the wire has rewritten ${rewritten.length} connections`];
}

/** What the wire should have done in both directions, and has not. */
export function idleWire(lab: Lab, impairment: string): string[] {
  const log = readFileSync(`${lab.directory}/router/wire.log`, 'utf8').split('\n');
  return Object.entries(parseImpairment(impairment))
    .filter(([cause, much]) => {
      return much > 0 && log.filter((line) => line === `acts ${cause}`).length < 2;
    })
    .map(([cause]) => `the wire's ${cause}`);
}

const MOVED = { server: 'moved', client: 'moved' } as const;

/** TCP's flags in a packet that a rule is for. */
const IS = {
  syn: 'tcp flags & (syn | ack) == syn',
  synAck: 'tcp flags & (syn | ack) == syn | ack',
  ack: 'tcp flags & (syn | ack) == ack',
  either: 'tcp flags & syn == syn',
};
const TI = 253;

const strip = (option: string | number, when: string) => (lab: Lab) =>
  mangle(lab, `${when} tcp option ${option} exists counter reset tcp option ${option}`);

/** A smaller one is not IPv6. */
const MTU_SMALL = 1280;

export const ROWS: readonly Row[] = [
  { name: 'none', summary: 'no middlebox', expected: MOVED },
  {
    name: 'invalid-dropped',
    summary: 'stateful firewalls on every hop that drop what is INVALID',
    build: dropInvalid,
    expected: MOVED,
  },
  {
    name: 'deny-at-client',
    summary: 'firewall at the client that lets no connection in',
    why: 'A server that moves has to reach the client, and its SYN is dropped.',
    apart: true,
    build: (lab, ends) => denyInbound(lab, ends.client, false),
    expected: { server: 'refused: no-answer', client: 'moved' },
  },
  {
    name: 'deny-at-server',
    summary: 'firewall at the server that lets in only connections to its service',
    apart: true,
    build: (lab, ends) => denyInbound(lab, ends.server, true),
    expected: MOVED,
  },
  {
    name: 'nat-at-client',
    summary: 'MASQUERADE at the client, random source ports',
    why: 'A server that moves dials the NAT, which knows nothing of it and answers with a reset.',
    apart: true,
    build: (lab, ends) => masquerade(lab, ends.client, false),
    expected: { server: 'refused: refused', client: 'moved' },
  },
  {
    name: 'nat-at-server',
    summary: 'MASQUERADE at the server, the port of its service forwarded',
    apart: true,
    build: (lab, ends) => masquerade(lab, ends.server, true),
    natted: ['server'],
    expected: MOVED,
  },
  {
    name: 'nat-at-both',
    summary: 'MASQUERADE at both',
    why: 'As with the NAT at the client.',
    apart: true,
    build: (lab, ends) => {
      masquerade(lab, ends.client, false);
      masquerade(lab, ends.server, true);
    },
    natted: ['server'],
    expected: { server: 'refused: refused', client: 'moved' },
  },
  {
    name: 'ti-stripped-syn',
    summary: 'our option removed from SYNs',
    build: strip(TI, IS.syn),
    expected: { server: 'plain: peer-plain', client: 'plain: peer-plain' },
  },
  {
    name: 'ti-stripped-syn-ack',
    summary: 'our option removed from SYN/ACKs',
    why: 'Only the server believes in a TI flow; the client, asked to move it, answers with a reset.',
    build: strip(TI, IS.synAck),
    expected: { server: 'refused: refused', client: 'plain: peer-plain' },
  },
  {
    name: 'ti-stripped-ack',
    summary: 'our option removed from ACKs',
    why: 'The third ACK of a set-up carries none; that of a synchronization does, and it proves nothing without.',
    build: strip(TI, IS.ack),
    expected: { server: 'refused: unconfirmed', client: 'refused: unconfirmed' },
  },
  {
    name: 'unknown-options-dropped',
    summary: 'SYNs with an unknown option dropped',
    why: 'The third SYN goes without it: only the client knows that there was one. After the second such connection the destination is remembered, and the next not delayed.',
    settings: { plain_peer_ttl: '4s' },
    build: (lab) => mangle(lab, `${IS.syn} tcp option ${TI} exists counter drop`),
    before: checkMemory,
    expected: { server: 'plain: peer-plain', client: 'plain: syn-lost' },
  },
  {
    name: 'isn-rewritten',
    summary: 'SEQ, ACK and SACK rewritten by random deltas for each connection, 1 % loss',
    wire: { impairment: 'loss=1%', isn: 'rewritten' },
    idle: notRewritten,
    expected: MOVED,
  },
  {
    name: 'isn-rewritten-sack-forgotten',
    summary: 'SEQ and ACK rewritten but SACK not, as old firewalls do, 1 % loss',
    wire: { impairment: 'loss=1%', isn: 'sack-forgotten' },
    idle: notRewritten,
    expected: MOVED,
  },
  {
    name: 'mss-clamped',
    summary: 'MSS lowered to 1000 in SYNs and SYN/ACKs',
    build: (lab) => mangle(lab, `${IS.either} counter tcp option maxseg size set 1000`),
    expected: MOVED,
  },
  {
    name: 'wscale-stripped',
    summary: 'window scale removed from SYNs and SYN/ACKs',
    build: strip('window', IS.either),
    expected: MOVED,
  },
  {
    name: 'timestamps-stripped',
    summary: 'timestamps removed from SYNs and SYN/ACKs',
    build: strip('timestamp', IS.either),
    expected: MOVED,
  },
  {
    name: 'synproxy',
    summary: 'SYNPROXY in front of the service',
    why: 'It answers the SYN itself, and calls the server with a SYN of its own.',
    build: synproxy,
    expected: { server: 'plain: peer-plain', client: 'plain: peer-plain' },
  },
  {
    name: 'syn-cookies',
    summary: 'a listener that answers every SYN with a cookie',
    build: (lab) => atBothEnds(lab, { 'ipv4/tcp_syncookies': '2' }),
    idle: (lab) => idleCounter(lab, 'TcpExtSyncookiesRecv'),
    expected: MOVED,
  },
  {
    name: 'mtu-icmp-passed',
    summary: `path MTU of ${MTU_SMALL} after the move, ICMP passed`,
    build: (lab) => narrowPorthos(lab, MTU_SMALL, 'passed'),
    expected: MOVED,
  },
  {
    name: 'mtu-icmp-dropped',
    summary: `path MTU of ${MTU_SMALL} after the move, ICMP dropped`,
    why: 'Large packets vanish; after two seconds the kernel is told a path MTU, as the router should have done.',
    build: (lab) => narrowPorthos(lab, MTU_SMALL, 'dropped'),
    expected: MOVED,
  },
  {
    name: 'ecn-bleached',
    summary: 'ECN asked for by both ends, and cleared in every IP header',
    build: (lab) => {
      atBothEnds(lab, { 'ipv4/tcp_ecn': '1' });
      mangle(
        lab,
        'ip ecn != not-ect counter ip ecn set not-ect',
        'ip6 ecn != not-ect counter ip6 ecn set not-ect',
      );
    },
    expected: MOVED,
  },
  { name: 'loss-1', summary: '1 % loss', wire: { impairment: 'loss=1%' }, expected: MOVED },
  {
    name: 'loss-5',
    summary: '5 % loss',
    why: 'One connection in a hundred is plain: two lost SYNs look like a firewall that drops our option. The row is about the others.',
    wire: { impairment: 'loss=5%' },
    expected: MOVED,
  },
  {
    name: 'reordering',
    summary: '5 % of the packets late by 5 ms',
    wire: { impairment: 'reorder=5%' },
    expected: MOVED,
  },
  {
    name: 'duplication',
    summary: '5 % of the packets twice',
    wire: { impairment: 'duplicate=5%' },
    expected: MOVED,
  },
  {
    name: 'delay',
    summary: '100 ms delay each way',
    wire: { impairment: 'delay=100ms' },
    expected: MOVED,
  },
  {
    name: 'hostile',
    summary: '5 % loss, reordering, duplication, 100 ms delay at once',
    wire: { impairment: 'delay=100ms,loss=5%,reorder=5%,duplicate=5%' },
    expected: MOVED,
  },
];

/** Throws LabError naming the rows there are. */
export function findRow(name: string): Row {
  const found = ROWS.find((row) => row.name === name);
  if (found) return found;
  throw new LabError(`no row ${name} (there are ${ROWS.map((row) => row.name).join(', ')})`);
}
