/* What a daemon leaves for the next one of each VM: whole, of this tap, or not used at all. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  forgetRecord,
  keepRecords,
  readRecord,
  removeRecords,
  type VmRecord,
  writeRecord,
} from '../../../src/daemon/vm/record.js';
import { unknownGuest } from '../../../src/guest/identity.js';
import { temporaryDirectory } from '../temporary.js';
import { GUEST_MAC, INSIDE, TAP } from '../vm-fixture.js';

const RECORD: VmRecord = {
  ...{ version: 1, name: 'vnet0', tap: TAP, guest: unknownGuest(GUEST_MAC) },
  ...{ request: ['dhcp'], former: [INSIDE], left: false },
};
const files = (runDir: string): string[] => readdirSync(join(runDir, 'taps')).sort();

function written(t: TestContext): string {
  const runDir = temporaryDirectory(t);
  writeRecord(runDir, RECORD);
  return runDir;
}

test('read as it was written, and for nobody else’s eyes', (t) => {
  const runDir = written(t);
  assert.deepEqual(readRecord(runDir, 'vnet0', TAP), RECORD);
  assert.equal(statSync(join(runDir, 'taps', 'vnet0.json')).mode & 0o777, 0o600);
  writeRecord(runDir, { ...RECORD, left: true });
  assert.equal(readRecord(runDir, 'vnet0', TAP)?.left, true);
  assert.deepEqual(files(runDir), ['vnet0.json']);
});

test('of a tap that was made anew under the same name: not used', (t) => {
  assert.equal(readRecord(written(t), 'vnet0', TAP + 1), undefined);
});

test('none', (t) => {
  const runDir = temporaryDirectory(t);
  assert.equal(readRecord(runDir, 'vnet0', TAP), undefined);
  forgetRecord(runDir, 'vnet0');
  keepRecords(runDir, []);
  removeRecords(runDir);
  assert.deepEqual(readdirSync(runDir), []);
});

const text = (o: object): string => JSON.stringify({ ...RECORD, ...o });
const { left: _, ...older } = RECORD;
for (const [name, content] of [
  ['empty', ''],
  ['cut off', text({}).slice(0, -5)],
  ['no object', 'null'],
  ['of another version', text({ version: 2 })],
  ['with a guest that is none', text({ guest: { mac: 'x' } })],
  ['with a former address that is none', text({ former: ['home'] })],
  ['with a request that is none', text({ request: 'dhcp' })],
  ['without a field', JSON.stringify(older)],
] as const) {
  test(`a record that is ${name}: not used, and overwritten by the next`, (t) => {
    const runDir = temporaryDirectory(t);
    mkdirSync(join(runDir, 'taps'));
    writeFileSync(join(runDir, 'taps', 'vnet0.json'), content);
    assert.equal(readRecord(runDir, 'vnet0', TAP), undefined);
    writeRecord(runDir, RECORD);
    assert.deepEqual(readRecord(runDir, 'vnet0', TAP), RECORD);
  });
}

test('died while it wrote: the former record counts, and the rest is swept', (t) => {
  const runDir = written(t);
  writeFileSync(join(runDir, 'taps', 'vnet0.json.new'), '{"vers');
  assert.deepEqual(readRecord(runDir, 'vnet0', TAP), RECORD);
  keepRecords(runDir, ['vnet0']);
  assert.deepEqual(files(runDir), ['vnet0.json']);
});

test('those of taps that are gone are forgotten, then all', (t) => {
  const runDir = written(t);
  for (const name of ['vnet1', 'vnet.2']) writeRecord(runDir, { ...RECORD, name });
  keepRecords(runDir, ['vnet0', 'vnet.2']);
  assert.deepEqual(files(runDir), ['vnet.2.json', 'vnet0.json']);
  forgetRecord(runDir, 'vnet0');
  assert.deepEqual(files(runDir), ['vnet.2.json']);
  removeRecords(runDir);
  assert.equal(existsSync(join(runDir, 'taps')), false);
});
