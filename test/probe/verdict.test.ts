/* What the answers to the probe's SYNs mean: the table in verdict.ts, row by row. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from '../../src/probe/answer.js';
import { judge, needsSync } from '../../src/probe/verdict.js';
import { address } from '../../src/wire/address.js';

const synAck = (open: 'none' | 'own' | 'reflected', keyId = 0): Answer => ({
  ...{ kind: 'syn-ack', optionBytes: 20, ms: 1 },
  ...{ open, keyId },
});
const ANSWERS: Record<string, Answer> = {
  'TI_OPEN back': synAck('own'),
  'key 7 back': synAck('own', 7),
  reflected: synAck('reflected'),
  'plain SYN/ACK': synAck('none'),
  reset: { kind: 'reset', ms: 1 },
  unreachable: { kind: 'unreachable', from: address('192.0.2.1'), why: 'prohibited', ms: 1 },
  nothing: { kind: 'none' },
};

function answer(name: string): Answer {
  const found = ANSWERS[name];
  assert.ok(found, name);
  return found;
}

const MOVABLE = 'true null there passes, back passes, peer tiflow';
const UNTOLD = 'there unknown, back unknown, peer unknown';
const ROWS: Array<[open: string, plain: string, sync: string | undefined, means: string]> = [
  ['TI_OPEN back', 'plain SYN/ACK', undefined, MOVABLE],
  ['TI_OPEN back', 'nothing', undefined, MOVABLE],
  ['key 7 back', 'plain SYN/ACK', undefined, MOVABLE],
  [
    'reflected',
    'plain SYN/ACK',
    undefined,
    'false reflected there passes, back passes, peer plain',
  ],
  [
    ...(['plain SYN/ACK', 'plain SYN/ACK', 'reset'] as const),
    'false no-option-back there passes, back unknown, peer tiflow',
  ],
  ['plain SYN/ACK', 'plain SYN/ACK', 'plain SYN/ACK', `false peer-plain ${UNTOLD}`],
  ['plain SYN/ACK', 'plain SYN/ACK', 'nothing', `false peer-plain ${UNTOLD}`],
  ['plain SYN/ACK', 'nothing', 'plain SYN/ACK', `false peer-plain ${UNTOLD}`],
  [
    ...(['nothing', 'plain SYN/ACK', 'reset'] as const),
    'false syn-ack-lost there passes, back fails, peer tiflow',
  ],
  [
    ...(['nothing', 'plain SYN/ACK', 'nothing'] as const),
    'false syn-lost there fails, back unknown, peer unknown',
  ],
  ['nothing', 'plain SYN/ACK', 'plain SYN/ACK', `false syn-lost ${UNTOLD}`],
  [
    ...(['reset', 'plain SYN/ACK', undefined] as const),
    'false syn-refused there fails, back unknown, peer unknown',
  ],
  ['reset', 'reset', undefined, `null closed ${UNTOLD}`],
  ['reset', 'nothing', undefined, `null closed ${UNTOLD}`],
  ['nothing', 'reset', undefined, `null closed ${UNTOLD}`],
  ['nothing', 'nothing', undefined, `null no-answer ${UNTOLD}`],
  ['unreachable', 'unreachable', undefined, `null unreachable ${UNTOLD}`],
  ['nothing', 'unreachable', undefined, `null unreachable ${UNTOLD}`],
];

for (const [open, plain, sync, means] of ROWS) {
  test(`${open}; without: ${plain}; synchronization: ${sync ?? 'not asked'}`, () => {
    const answers = {
      ...{ open: answer(open), plain: answer(plain) },
      sync: sync === undefined ? undefined : answer(sync),
    };
    assert.equal(needsSync(answers.open, answers.plain), sync !== undefined);
    const { movable, reason, there, back, peer } = judge(answers, undefined);
    const said = `${movable} ${reason} there ${there}, back ${back}, peer ${peer}`;
    assert.equal(said, means);
  });
}

test('a pre-shared key that is required has to be in common', () => {
  const about = (open: string) =>
    judge({ open: answer(open), plain: answer('plain SYN/ACK'), sync: undefined }, 7);
  assert.equal(about('key 7 back').movable, true);
  assert.equal(about('TI_OPEN back').reason, 'no-psk');
});
