/* The table of rungs in HACKING.md, and what `make test` prints beside it. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import rungs, { rungsOf } from '../rungs.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const HACKING = readFileSync(join(ROOT, 'docs/HACKING.md'), 'utf8');
/** `make test`: half an hour, less what builds and lints; two files at a time. */
const MAKE_TEST_S = 30 * 60 - 100;
const AT_ONCE = 2;

describe('HACKING.md, the rungs', () => {
  test('each folder with tests is in one row, with a budget', () => {
    const folders = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.test.ts'))
      .map((path) => `test/${path.split('/')[0]}`);
    const listed = rungsOf(HACKING).flatMap((rung) => rung.folders);
    assert.deepEqual(listed.sort(), [...new Set(folders)].sort());
  });

  test('the budgets fit into `make test`', () => {
    const sum = rungsOf(HACKING).reduce((s, { budgetS }) => s + budgetS, 0);
    assert.ok(sum <= AT_ONCE * MAKE_TEST_S, `${sum} s`);
  });
});

describe('the report', () => {
  const result = (type: string, folder: string, ms: number, nesting = 0) => ({
    type,
    data: {
      file: join(ROOT, 'dist/test', folder, 'some.test.js'),
      nesting,
      details: { duration_ms: ms },
    },
  });
  const sums = (...messages: string[]) =>
    messages.map((message) => ({ type: 'test:diagnostic', data: { message } }));

  async function report(
    events: Parameters<typeof rungs>[0] extends AsyncIterable<infer E> ? E[] : never,
  ) {
    async function* source() {
      yield* events;
    }
    const said: string[] = [];
    for await (const text of rungs(source())) said.push(text.trimEnd());
    return said;
  }

  test('seconds by rung, nested tests only counted; sums; a last line for programs', async () => {
    const said = await report([
      result('test:pass', 'wire', 700, 1),
      result('test:pass', 'wire', 1000),
      result('test:fail', 'sync', 2000),
      ...sums('tests 3', 'pass 2', 'fail 1', 'cancelled 0', 'skipped 0', 'duration_ms 3000.5'),
    ]);
    const row = said.find((line) => line.includes('test/wire')) ?? '';
    assert.match(row, /^ +3 +3 +\d+ {2}test\/wire test\/sync /);
    assert.deepEqual(said.slice(-6), [
      '# tests 3',
      '# pass 2',
      '# fail 1',
      '# skipped 0',
      '# seconds 3',
      '2 passed, 1 failed',
    ]);
  });

  test('a rung over its budget is named, a folder without a row too', async () => {
    const [{ budgetS } = { budgetS: 0 }] = rungsOf(HACKING);
    const said = await report([
      result('test:pass', 'wire', (budgetS + 1) * 1e3),
      result('test:pass', 'guest', 0),
      result('test:pass', 'new', 1e3),
    ]);
    const over = said.filter((line) => line.endsWith('OVER BUDGET'));
    assert.equal(over.length, 2, said.join('\n'));
    assert.match(over[1] ?? '', / test\/new /);
  });
});
