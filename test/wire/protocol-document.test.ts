/*
 * docs/PROTOCOL.md says nothing that the vectors do not: every block of hex is one of their
 * values, every packet one of their packets, every long hex string in the text is found there.
 * And it leaves out no reason that bpf/abi.h has.
 *
 *   ```hex      values separated by empty lines, white space within a value does not count
 *   ```packet   one packet per line; a line that begins with a space goes on with the one before
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { vectorText } from './vectors.js';

const ROOT = new URL('../../../', import.meta.url);
const document = readFileSync(new URL('docs/PROTOCOL.md', ROOT), 'utf8');
const FILES = [
  'options.json',
  'keys.json',
  'macs.json',
  'set-up.json',
  'room.json',
  'synchronization.json',
];

/** Every string in the vectors, however deep. */
const values = new Set<string>();
for (const file of FILES) {
  JSON.parse(vectorText(file), (_, value: unknown) => {
    if (typeof value === 'string') values.add(value);
    return value;
  });
}

/** The contents of the fenced blocks of one kind. */
const blocks = (kind: string): string[] =>
  [...document.matchAll(new RegExp(`^\`\`\`${kind}\\n(.*?)^\`\`\``, 'gms'))].map((m) => m[1] ?? '');

const hexValues = blocks('hex')
  .flatMap((block) => block.split(/\n\s*\n/))
  .map((value) => value.replaceAll(/\s/g, ''));

const packetLines = blocks('packet').flatMap((block) =>
  block.trimEnd().replaceAll(/\n +/g, ' ').split('\n'),
);

test('the document has examples', () => {
  assert.ok(hexValues.length >= 15, `${hexValues.length} hex values`);
  assert.ok(packetLines.length >= 10, `${packetLines.length} packets`);
});

for (const value of hexValues) {
  test(`${value.slice(0, 40)}… stands in the vectors`, () => assert.ok(values.has(value)));
}

for (const line of packetLines) {
  test(`${line.slice(0, 60)} stands in the vectors`, () => assert.ok(values.has(line)));
}

test('every long hex string in the text is part of a vector', () => {
  const text = document.replaceAll(/^```.*?^```/gms, '');
  const strings = text.match(/\b[0-9a-f]{16,}\b/g) ?? [];
  assert.ok(strings.length > 0);
  for (const string of strings) {
    assert.ok(
      [...values].some((value) => value.includes(string)),
      string,
    );
  }
});

test('every reason of the data plane is explained', () => {
  const header = readFileSync(new URL('bpf/abi.h', ROOT), 'utf8');
  const reasons = [...header.matchAll(/^\t(?:LEGACY|DROP)_([A-Z0-9_]+)[ ,]/gm)];
  assert.ok(reasons.length > 20);
  for (const [, name = ''] of reasons) {
    const label = name.toLowerCase().replaceAll('_', '-');
    assert.ok(document.includes(`\`${label}\``), `${label} in PROTOCOL.md`);
  }
});

test('no line is wider than 100 columns, tables aside', () => {
  for (const line of document.split('\n')) {
    if (!line.startsWith('|')) assert.ok(line.length <= 100, line);
  }
});
