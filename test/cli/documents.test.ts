/* What the documents list is what the program has: keys, reasons, events, codes, verbs, packages. */

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { REASON, reasonName } from '../../src/boundary/abi.gen.js';
import { EXIT } from '../../src/cli/exit.js';
import { BRIEF_FIELDS } from '../../src/cli/flows.js';
import {
  CONFIG_KEYS,
  defaultConfig,
  LOG_LEVELS,
  parseConfig,
} from '../../src/daemon/config/config.js';
import { hostsDocument, withoutSilences } from '../../src/lab/host-cases/document.js';
import { HOST_CASES } from '../../src/lab/host-cases/table.js';
import { expectedDocument, withoutGaps } from '../../src/lab/matrix/document.js';
import { ROWS } from '../../src/lab/matrix/rows.js';
import { tiflow } from './tiflow.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const OPERATIONS = read('docs/OPERATIONS.md');

/** All of `code` spans in the first cells of the tables of a document. */
function namesInTables(document: string): Set<string> {
  const rows = document.split('\n').filter((line) => line.startsWith('| `'));
  const cells = rows.map((row) => row.split(/(?<!\\)\|/)[1] ?? '');
  return new Set(
    cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? '')),
  );
}

/** The literals of a union type. */
function literalsOf(path: string, type: string): string[] {
  const declaration = new RegExp(`type ${type} =([^;]+);`).exec(read(path))?.[1] ?? '';
  const literals = [...declaration.matchAll(/'([^']+)'/g)].map(([, literal]) => literal ?? '');
  assert.ok(literals.length > 3, `${type} in ${path}`);
  return literals;
}

function assertListed(names: readonly string[]): void {
  const listed = namesInTables(OPERATIONS);
  assert.deepEqual(
    names.filter((name) => !listed.has(name)),
    [],
    'missing in docs/OPERATIONS.md',
  );
}

describe('OPERATIONS.md', () => {
  test('every configuration key', () => assertListed(CONFIG_KEYS));

  test('every reason', () => {
    const numbers = Object.values(REASON).filter((n) => n !== REASON.REASON_END);
    assert.ok(OPERATIONS.includes('`none` (0)'));
    assertListed(numbers.map(reasonName).filter((name) => name !== 'none'));
  });

  test('every event and why moves fail', () => {
    assertListed(literalsOf('src/daemon/view/view.ts', 'MonitorEventName'));
    assertListed(literalsOf('src/daemon/view/view.ts', 'FlowState'));
    assertListed(literalsOf('src/link/resume-detector.ts', 'ResumeReason'));
    assertListed(literalsOf('src/sync/event.ts', 'FailureReason'));
    assertListed(literalsOf('src/sync/event.ts', 'RefusalReason'));
    assertListed(literalsOf('src/probe/verdict.ts', 'ProbeReason'));
  });

  test('every exit code, no other', () => {
    const [, section = ''] = /## Exit codes\n([\s\S]*?)\n## /.exec(OPERATIONS) ?? [];
    const codes = [...section.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code));
    assert.deepEqual(codes, Object.values(EXIT));
  });

  test('every verb, every field of flows --brief, every log level', async () => {
    const { stdout } = await tiflow(['--help']);
    const verbs = [...stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, verb]) => verb ?? '');
    assert.ok(verbs.length >= 8, stdout);
    for (const verb of verbs.filter((each) => each !== 'help')) {
      assert.match(OPERATIONS, new RegExp(`^\\| \`${verb}\\b`, 'm'));
    }
    assert.ok(OPERATIONS.includes(`\`${BRIEF_FIELDS.join(' ')}\``));
    assert.ok(OPERATIONS.includes(LOG_LEVELS.join(', ')));
  });

  test('the example configuration is the defaults', () => {
    const [, example = ''] = /```toml\n([\s\S]*?)```/.exec(OPERATIONS) ?? [];
    assert.deepEqual(parseConfig(example, 'example'), defaultConfig());
    for (const key of CONFIG_KEYS) {
      assert.match(example, new RegExp(`^(# )?${key.replace(/^[a-z]+\./, '')} = `, 'm'), key);
    }
  });

  test('the mistakes that it shows are what the program says', () => {
    const shown = [...OPERATIONS.matchAll(/^\/etc\/tiflow\.toml:(\d+): (.*)$/gm)];
    const text = `${'\n'.repeat(11)}give_up = "60"\ngiveup = 1\n`;
    assert.throws(() => parseConfig(text, '/etc/tiflow.toml'), {
      message: shown.map(([line]) => line).join('\n'),
    });
  });
});

describe('MIDDLEBOXES.md', () => {
  test('is what the rows of the matrix say; only times may differ', () => {
    const page = withoutGaps(read('docs/MIDDLEBOXES.md'));
    assert.equal(page, withoutGaps(expectedDocument(ROWS)), 'run `make middleboxes`');
  });
});

describe('HOSTS.md', () => {
  test('is what the cases of hosts say; only times may differ', () => {
    const page = withoutSilences(read('docs/HOSTS.md'));
    assert.equal(page, withoutSilences(hostsDocument(HOST_CASES, new Map())), 'run `make hosts`');
  });
});

describe('DEPENDENCIES.md', () => {
  test('every package of package.json and packages.txt, no other', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json'));
    const debian = read('packages.txt')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    const needed = [...Object.keys(dependencies), ...Object.keys(devDependencies), ...debian];
    assert.deepEqual([...namesInTables(read('docs/DEPENDENCIES.md'))].sort(), needed.sort());
  });
});

describe('links', () => {
  const documents = [
    'README.md',
    'CHANGELOG.md',
    ...readdirSync(join(ROOT, 'docs'), {
      recursive: true,
      encoding: 'utf8',
    }).map((name) => join('docs', name)),
  ].filter((name) => name.endsWith('.md') && existsSync(join(ROOT, name)));
  for (const document of documents) {
    test(document, () => {
      const targets = [...read(document).matchAll(/\]\(([^)#\s]+)(#[^)]*)?\)/g)].map(
        ([, t]) => t ?? '',
      );
      const broken = targets
        .filter((target) => !/^https?:/.test(target))
        .filter((target) => !existsSync(join(ROOT, dirname(document), target)));
      assert.deepEqual(broken, []);
    });
  }
});
