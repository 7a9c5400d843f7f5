/* The lab's cases: what the table has, `lab list` shows, the tests play and the documents name. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CASE_GROUPS, CASES } from '../../src/lab/cases/table.js';
import { HOST_CASES } from '../../src/lab/host-cases/table.js';
import { isNoWorse } from '../../src/lab/twins/outcome.js';
import { tiflow } from './tiflow.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const NAMES = CASES.map(({ name }) => name);
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

const documents = (): string[] => [
  'README.md',
  'CHANGELOG.md',
  'Makefile',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => join('docs', path)),
];

/** Names of cases in a text: after "lab run", "case" or "cases", and each behind a comma or "and". */
function casesNamed(text: string): string[] {
  const ran = [...text.matchAll(/lab run ([a-z][a-z0-9.-]*)/g)].map(([, name]) => name ?? '');
  const told = [...text.matchAll(/\bcases? ((?:`[a-z0-9.-]+`(?:, | and )?)+)/gi)];
  const listed = told.flatMap(([, list = '']) => [...list.matchAll(/`([^`]+)`/g)]);
  return [...ran, ...listed.map(([, name]) => name ?? '')];
}

/** `program-...` is every case whose name begins so. */
const isCase = (name: string): boolean =>
  name === 'matrix' ||
  name === 'hosts' ||
  (name.endsWith('...')
    ? NAMES.some((known) => known.startsWith(name.slice(0, -3)))
    : NAMES.includes(name));

describe('the cases of the lab', () => {
  test('each has a name of its own', () => assert.equal(new Set(NAMES).size, NAMES.length));

  test('`lab list` shows them all', async () => {
    const { stdout } = await tiflow(['lab', 'list', '--json']);
    const { cases } = JSON.parse(stdout) as { cases: Array<{ name: string }> };
    assert.deepEqual(
      cases.map(({ name }) => name),
      NAMES,
    );
  });

  test('each group has its test file, which plays it', () => {
    const groups = readdirSync(join(ROOT, 'test/cases'))
      .filter((file) => file.endsWith('.test.ts'))
      .map((file) => {
        const [group = ''] = file.split('.');
        assert.ok(read(`test/cases/${file}`).includes(`playGroup('${group}',`), file);
        return group;
      });
    assert.deepEqual(groups.sort(), Object.keys(CASE_GROUPS).sort());
  });

  test('every module of cases is in the table', () => {
    const tables = ['cases', 'host-cases'].map((folder) => read(`src/lab/${folder}/table.ts`));
    const modules = ['cases', 'host-cases', 'real-programs'].flatMap((folder) =>
      readdirSync(join(ROOT, 'src/lab', folder))
        .filter((file) =>
          /^ {2}(?:\{ )?name: ['`][^' ]+['`]/m.test(read(join('src/lab', folder, file))),
        )
        .map((file) => file.replace(/\.ts$/, '.js')),
    );
    assert.ok(modules.length > 10);
    assert.deepEqual(
      modules.filter((module) => !tables.some((table) => table.includes(`/${module}'`))),
      [],
    );
  });

  test('hosts: what is fine without tiflow has to be fine with it', () => {
    const talks = HOST_CASES.flatMap((each) => each.talks);
    assert.deepEqual(
      talks.filter((talk) => !isNoWorse(talk.with, talk.without)),
      [],
    );
  });

  test('documents name none that is not there', () => {
    const named = documents().flatMap((path) =>
      casesNamed(read(path)).map((name) => `${path}: ${name}`),
    );
    assert.ok(named.length > 10, named.join('\n'));
    assert.deepEqual(
      named.filter((line) => !isCase(line.split(': ')[1] ?? '')),
      [],
    );
  });
});
