/* A failure at any stage: what is undone, in which order, and what is said. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Aborted, runStages, type Stage, Undecided } from '../../src/migrate/stages.js';

const NAMES = ['check', 'address', 'memory', 'continue', 'release'] as const;
type Name = (typeof NAMES)[number];

/** Runs the table; `run` and `undo` name those that fail. */
async function play(o: { run?: Name[]; undo?: Name[]; error?: Error; abortIn?: Name }) {
  const trace: string[] = [];
  const abort = new AbortController();
  const stages: Stage<Name>[] = NAMES.map((name) => ({
    name,
    run: async (signal) => {
      trace.push(name);
      if (o.abortIn === name) abort.abort();
      if (signal.aborted) throw new Aborted();
      if (o.run?.includes(name)) throw o.error ?? new Error(`${name} broke`);
    },
    undo: async () => {
      trace.push(`-${name}`);
      if (o.undo?.includes(name)) throw new Error(`${name} stays`);
    },
    ...(name === 'continue' ? { point: 'commit' as const } : {}),
    ...(name === 'release' ? { point: 'after' as const } : {}),
  }));
  const told: string[] = [];
  const outcome = await runStages(stages, {
    signal: abort.signal,
    emit: ({ stage, event, message }) =>
      told.push([stage, event, message].filter(Boolean).join(' ')),
  });
  return { outcome, trace: trace.join(' '), told };
}

test('all goes well', async () => {
  const { outcome, trace } = await play({});
  assert.deepEqual(outcome, { result: 'done', unfinished: [] });
  assert.equal(trace, NAMES.join(' '));
});

test('a failure undoes in reverse, beginning with the stage that failed', async () => {
  const { outcome, trace, told } = await play({ run: ['memory'] });
  assert.equal(trace, 'check address memory -memory -address -check');
  assert.ok(outcome.result === 'undone');
  assert.equal(outcome.failed.stage, 'memory');
  assert.equal(outcome.failed.error.message, 'memory broke');
  assert.deepEqual(told.slice(-4), [
    'memory failed memory broke',
    'memory undone',
    'address undone',
    'check undone',
  ]);
});

test('an undo that fails keeps no other from being attempted', async () => {
  const { outcome, trace } = await play({ run: ['memory'], undo: ['memory', 'address'] });
  assert.equal(trace, 'check address memory -memory -address -check');
  assert.ok(outcome.result === 'undone');
  assert.deepEqual(
    outcome.notUndone.map(({ stage, error }) => `${stage}: ${error.message}`),
    ['memory: memory stays', 'address: address stays'],
  );
});

test('interrupted between two stages: the next one does not begin', async () => {
  const { outcome, trace } = await play({ abortIn: 'address' });
  assert.equal(trace, 'check address -address -check');
  assert.ok(outcome.result === 'undone' && outcome.failed.error instanceof Aborted);
});

test('from the commit point on an interrupt is ignored', async () => {
  assert.equal((await play({ abortIn: 'continue' })).outcome.result, 'done');
  assert.equal((await play({ abortIn: 'release' })).outcome.result, 'done');
});

test('undecided: nothing is undone, nothing goes on', async () => {
  const { outcome, trace } = await play({ run: ['continue'], error: new Undecided('who knows') });
  assert.equal(trace, 'check address memory continue');
  assert.equal(outcome.result, 'undecided');
});

test('after the commit a failure is told, and undoes nothing', async () => {
  const { outcome, trace } = await play({ run: ['release'] });
  assert.equal(trace, NAMES.join(' '));
  assert.ok(outcome.result === 'done');
  assert.deepEqual(
    outcome.unfinished.map(({ stage }) => stage),
    ['release'],
  );
});

test('whatever fails: each stage that began is undone exactly once, or none is', async () => {
  const some = fc.subarray([...NAMES]);
  await fc.assert(
    fc.asyncProperty(some, some, async (run, undo) => {
      const { outcome, trace } = await play({ run, undo });
      const steps = trace.split(' ');
      const began = steps.filter((step) => !step.startsWith('-'));
      const undone = steps.filter((step) => step.startsWith('-')).map((step) => step.slice(1));
      const expected = outcome.result === 'undone' ? began.toReversed() : [];
      assert.deepEqual(undone, expected);
    }),
  );
});
