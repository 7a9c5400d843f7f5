/*
 * SECURITY.md names a test for what it says: each file exists, and has each test that is quoted
 * behind it (an ellipsis stands for the rest).  Whether that test can fail shows where it stands.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const ROOT = new URL('../../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');

/** Each row that names tests: `file` "title", "title"; `file` "title". */
const rows = read('docs/SECURITY.md')
  .split('\n')
  .filter((line) => line.startsWith('|') && line.includes('`test/'));

test('every test that SECURITY.md names exists', () => {
  assert.ok(rows.length > 20, `${rows.length} rows`);
  for (const row of rows) {
    for (const [, file = '', titles = ''] of row.matchAll(
      /`(test\/[\w/.-]+\.test\.ts)`((?:[,;]? "[^"]+")*)/g,
    )) {
      assert.ok(existsSync(new URL(file, ROOT)), `${file}: no such file`);
      const source = read(file);
      for (const [, quoted = ''] of titles.matchAll(/"([^"]+)"/g)) {
        const title = quoted.replace(/ ?…$/, '');
        assert.ok(source.includes(title), `${file} has no test "${title}"`);
      }
    }
  }
});

test('every case that SECURITY.md names exists', () => {
  const cases = [...rows.join('\n').matchAll(/case `([\w-]+)`/g)].map(([, name]) => name);
  const sources = ['forged', 'stranger', 'legacy'].map((f) => read(`src/lab/cases/${f}.ts`)).join();
  for (const name of cases) assert.ok(sources.includes(`name: '${name}'`), `case ${name}`);
});
