/* The operator's command hears of every move, in order, and can hold up nobody. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import { type AddressMove, MovedHook } from '../../../src/daemon/flows/moved-hook.js';
import { until } from '../../../src/lab/wait.js';
import { address } from '../../../src/wire/address.js';
import { temporaryDirectory } from '../temporary.js';

const MOVE: AddressMove = {
  vm: 'vnet0',
  mac: '52:54:00:12:34:56',
  old: { 4: address('192.0.2.10') },
  new: { 4: address('198.51.100.10'), 6: address('2001:db8:2::10') },
};

const onwards = (last: number): AddressMove => ({
  ...MOVE,
  old: MOVE.new,
  new: { 4: address(`198.51.100.${last}`) },
});

/** A hook whose command may write to $OUT; what it wrote, and what was logged. */
function hookOf(t: TestContext, command: string, timeoutMs?: number) {
  const out = join(temporaryDirectory(t), 'out');
  const logged: { msg: string; vm: string; level: number }[] = [];
  const log = pino({}, { write: (line: string) => logged.push(JSON.parse(line)) });
  const hook = new MovedHook({
    command: `OUT=${out}; ${command}`,
    log,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const written = (): string[] => {
    try {
      return readFileSync(out, 'utf8').split('\n').filter(Boolean);
    } catch {
      return []; // nothing yet
    }
  };
  return { hook, logged, written };
}

const ALL = '$TIFLOW_VM $TIFLOW_MAC $TIFLOW_OLD4 $TIFLOW_NEW4 [$TIFLOW_OLD6] $TIFLOW_NEW6';

test('the environment tells all; none is empty, not unset', async (t) => {
  const { hook, written } = hookOf(t, `set -u; echo "${ALL}" >> $OUT`);
  hook.moved(MOVE);
  await until('the command', () => written().length > 0);
  assert.deepEqual(written(), [
    'vnet0 52:54:00:12:34:56 192.0.2.10 198.51.100.10 [] 2001:db8:2::10',
  ]);
});

test('the same addresses are no news, and without a command there is none', async (t) => {
  const { hook, written } = hookOf(t, 'echo "$TIFLOW_NEW4" >> $OUT');
  hook.moved({ ...MOVE, new: MOVE.old });
  new MovedHook({ command: undefined, log: pino({ level: 'silent' }) }).moved(MOVE);
  hook.moved(onwards(11));
  await until('the command', () => written().length > 0);
  assert.deepEqual(written(), ['198.51.100.11']);
});

test('what it writes is in the log, up to a bound, and how it failed', async (t) => {
  const { hook, logged } = hookOf(t, 'seq 1000; echo no such zone >&2; exit 9');
  hook.moved(MOVE);
  await until('its end', () => logged.some(({ msg }) => msg.includes('exit code 9')));
  await until('its words', () => logged.filter(({ level }) => level === 30).length === 50);
  assert.deepEqual(
    logged.filter(({ vm }) => vm !== 'vnet0'),
    [],
  );
});

test('moves of one VM are told one after the other; those that wait are told as one', async (t) => {
  const wait = 'until [ -e $OUT.go ]; do sleep 0.02; done';
  const { hook, written } = hookOf(
    t,
    `echo "$TIFLOW_OLD4 > $TIFLOW_NEW4" >> $OUT; [ $TIFLOW_VM = vnet0 ] || : > $OUT.go; ${wait}`,
  );
  hook.moved(MOVE);
  hook.moved(onwards(11));
  hook.moved({ ...onwards(12), old: onwards(11).new });
  await until('the first', () => written().length === 1);
  hook.moved({ ...MOVE, vm: 'vnet1' });
  await until('the last', () => written().length === 3);
  assert.deepEqual(written(), [
    '192.0.2.10 > 198.51.100.10',
    '192.0.2.10 > 198.51.100.10',
    '198.51.100.10 > 198.51.100.12',
  ]);
});

test('a VM that is back before its move was told is no news', async (t) => {
  const { hook, written } = hookOf(t, 'echo "$TIFLOW_VM $TIFLOW_NEW4" >> $OUT');
  hook.moved(MOVE);
  hook.moved(onwards(11));
  hook.moved({ ...MOVE, old: onwards(11).new });
  await until('the first', () => written().length === 1);
  hook.moved({ ...MOVE, vm: 'vnet1' });
  await until('another VM', () => written().length === 2);
  assert.deepEqual(written(), ['vnet0 198.51.100.10', 'vnet1 198.51.100.10']);
});

test('one that hangs is killed with all that it has started', async (t) => {
  const { hook, logged, written } = hookOf(t, 'sleep 1000 & echo $! >> $OUT; wait', 300);
  hook.moved(MOVE);
  await until('its end', () => logged.some(({ msg }) => msg.includes('longer than 300 ms')));
  const pid = Number(written()[0]);
  assert.ok(pid > 1);
  await until('the end of its child', () => hasEnded(pid));
});

/* A zombie that nobody has waited for has ended, too. */
function hasEnded(pid: number): boolean {
  try {
    return /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return true;
  }
}
