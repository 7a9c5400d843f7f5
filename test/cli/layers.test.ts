/* Which folder of src may import from which: the table of docs/ARCHITECTURE.md. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** Folder, below src, to what its files may import from; in the order of the table. */
function table(): Map<string, string[]> {
  const page = readFileSync(join(ROOT, 'docs/ARCHITECTURE.md'), 'utf8');
  const rows = page.matchAll(/^\| `src\/([a-z/]+)\/` \|.*\| ([a-z/, ]*)\|$/gm);
  return new Map(
    [...rows].map(([, folder = '', may = '']) => [folder, may.split(',').map((one) => one.trim())]),
  );
}

const FOLDERS = table();

/** The row that a file belongs to: the longest that it is below. */
const folderOf = (file: string): string | undefined =>
  [...FOLDERS.keys()]
    .filter((folder) => file.startsWith(`src/${folder}/`))
    .sort((a, b) => b.length - a.length)[0];

const SOURCES = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => `src/${file}`);

const importsOf = (file: string): string[] =>
  [...readFileSync(join(ROOT, file), 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(
    ([, path = '']) => normalize(join(dirname(file), path)),
  );

test('each folder of src has its row', () => {
  assert.deepEqual(
    SOURCES.filter((file) => folderOf(file) === undefined),
    [],
  );
});

test('a row uses what stands above it', () => {
  const above = new Set(['']);
  for (const [folder, may] of FOLDERS) {
    const below = may.filter((other) => !above.has(other));
    assert.deepEqual(below, [], `${folder} uses what stands below it`);
    above.add(folder);
  }
});

test('imports go where the table says, and nowhere else', () => {
  const used = new Map([...FOLDERS.keys()].map((folder) => [folder, new Set<string>()]));
  const wrong: string[] = [];
  for (const file of SOURCES) {
    const from = folderOf(file) ?? '';
    for (const path of importsOf(file)) {
      const to = folderOf(path) ?? '';
      if (to === from) continue;
      used.get(from)?.add(to);
      if (!FOLDERS.get(from)?.includes(to)) wrong.push(`${file} imports ${path}`);
    }
  }
  assert.deepEqual(wrong, []);
  for (const [folder, may] of FOLDERS) {
    const idle = may.filter((other) => other !== '' && !used.get(folder)?.has(other));
    assert.deepEqual(idle, [], `${folder} does not use`);
  }
});
