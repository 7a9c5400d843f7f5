/* The reading verbs, against a daemon whose answers are known: text for people, lines for awk,
 * JSON for programs.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { BRIEF_FIELDS, formatBrief, formatFlows } from '../../src/cli/flows.js';
import { formatStatus } from '../../src/cli/status.js';
import { alignColumns, plain } from '../../src/cli/table.js';
import type { StatusView } from '../../src/daemon/view/view.js';
import { FLOWS, STATUS, TAP } from '../daemon/fake-control.js';
import { fakeDaemon, tiflow } from './tiflow.js';

const STATUS_TEXT = `\
tiflow 0.1.0: daemon running, pid 4711, up 2 h 3 min

INTERFACE  BOUNDARY      LINK        ADDRESSES
eth0       attached      up          198.51.100.7 2001:db8:2::7
wlan0      not attached  no carrier  -

retained  192.0.2.10
flows     3 protected, 1 moved, 1 moving
legacy    4
moves     3 completed, 0 failed

legacy flows by reason
  peer-plain  3
  no-room     1

counters
  flow-opened  12
  old-path     2
`;

const FLOWS_TEXT = `\
STATE    TIFID             MOVES  GAP    KERNEL                                        WIRE                                    REASON
steady   0a0b0c0d01020304  0      -      198.51.100.7:22 > 203.0.113.7:40000           =
steady   ffffffff00000001  3      12 ms  192.0.2.10:22 > 203.0.113.7:40001             198.51.100.7:61234 > 203.0.113.7:40001
syncing  1111111122222222  0      -      [2001:db8:1::10]:50000 > [2001:db8:9::1]:443  =
legacy   -                 0      -      198.51.100.7:38000 > 203.0.113.9:80           =                                       peer-plain
`;

const BRIEF_TEXT = `\
0a0b0c0d01020304 responder steady 0 - 0 12 198.51.100.7:22 203.0.113.7:40000 198.51.100.7:22 203.0.113.7:40000 - - no
ffffffff00000001 responder steady 3 12 3 2500 192.0.2.10:22 203.0.113.7:40001 198.51.100.7:61234 203.0.113.7:40001 - - no
1111111122222222 initiator syncing 0 - 0 12 [2001:db8:1::10]:50000 [2001:db8:9::1]:443 [2001:db8:1::10]:50000 [2001:db8:9::1]:443 - - no
- - legacy 0 - 0 12 198.51.100.7:38000 203.0.113.9:80 198.51.100.7:38000 203.0.113.9:80 peer-plain - no
`;

async function shell(script: string, args: string[]): Promise<{ exit: number; output: string }> {
  const child = spawn('bash', ['-o', 'pipefail', '-c', script, ...args]);
  let output = '';
  child.stdout.on('data', (text: Buffer) => {
    output += text;
  });
  const [exit] = await once(child, 'close');
  return { exit, output };
}

const done = (stdout: string) => ({ exit: 0, stdout, stderr: '' });

describe('through the socket', () => {
  test('status', async (t) => {
    const { runDir } = await fakeDaemon(t);
    assert.deepEqual(await tiflow(['status', '--run-dir', runDir]), done(STATUS_TEXT));
    const json = await tiflow(['status', '--json', '--run-dir', runDir]);
    assert.deepEqual(JSON.parse(json.stdout), STATUS);
  });

  test('flows', async (t) => {
    const { runDir } = await fakeDaemon(t);
    assert.deepEqual(await tiflow(['flows', '--run-dir', runDir]), done(FLOWS_TEXT));
    assert.deepEqual(await tiflow(['flows', '--brief', '--run-dir', runDir]), done(BRIEF_TEXT));
    const json = await tiflow(['flows', '--json', '--run-dir', runDir]);
    assert.deepEqual(JSON.parse(json.stdout), { version: 1, flows: FLOWS });
  });

  test('where the output cannot be written: a closed pipe is fine, a full disk is not', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    control.list = Array.from({ length: 20_000 }, () => FLOWS[0]).flatMap((flow) => flow ?? []);
    const main = new URL('../../src/cli/main.js', import.meta.url).pathname;
    const args = [process.execPath, main, 'flows', '--brief', '--run-dir', runDir];
    const closed = await shell('"$0" "$@" | head -n 1', args);
    assert.equal(closed.output, `${BRIEF_TEXT.split('\n')[0]}\n`);
    assert.equal(closed.exit, 0);
    const full = await shell('"$0" "$@" 2>&1 >/dev/full', args);
    assert.equal(full.output, 'tiflow: write to standard output: ENOSPC\n');
    assert.equal(full.exit, 1);
  });

  test('monitor prints each event as one line and ends with the daemon', async (t) => {
    const { runDir, control } = await fakeDaemon(t);
    const running = tiflow(['monitor', '--run-dir', runDir]);
    while (control.listeners.size === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    control.emit({ version: 1, at_ms: 5, event: 'carrier-up', interface: 'eth0' });
    control.emit({ version: 1, at_ms: 9, event: 'proven', gap_ms: 4 });
    control.onShutdown();
    assert.deepEqual(await running, {
      exit: 3,
      stdout:
        '{"version":1,"at_ms":5,"event":"carrier-up","interface":"eth0"}\n' +
        '{"version":1,"at_ms":9,"event":"proven","gap_ms":4}\n',
      stderr: 'tiflow: the daemon has stopped\n',
    });
  });
});

describe('formatting', () => {
  test('columns', () => {
    assert.deepEqual(alignColumns([['a', 'bb', ''], ['ccc', '', 'd'], ['e']]), [
      'a    bb',
      'ccc      d',
      'e',
    ]);
    assert.deepEqual(alignColumns([]), []);
  });

  test('an idle daemon', () => {
    const idle: StatusView = {
      ...STATUS,
      uptime_s: 0,
      interfaces: [],
      retained: [],
      flows: { protected: 0, moving: 0, moved: 0, stuck: 0, forwarded: 0, legacy: 0 },
      legacy_by_reason: {},
      counters: {},
      moves: { completed: 0, failed: 0 },
    };
    assert.equal(
      formatStatus(idle, plain),
      'tiflow 0.1.0: daemon running, pid 4711, up 0 ms\n\n' +
        'no interfaces (tiflow up IF...)\n\n' +
        'retained  none\nflows     0 protected, 0 moved, 0 moving\n' +
        'legacy    0\nmoves     0 completed, 0 failed',
    );
    assert.deepEqual(formatFlows([], plain), ['STATE  TIFID  MOVES  GAP  KERNEL  WIRE  REASON']);
  });

  test('a hypervisor and its VM', () => {
    const text = formatStatus({ ...STATUS, taps: [TAP] }, plain);
    assert.match(text, /^VM +MAC +PLACE +INSIDE +OUTSIDE +FLOWS$/m);
    assert.match(text, /^vnet0 +52:54:00:00:00:0a +away +192\.0\.2\.10 .* 198\.51\.100\.10 /m);
    const [steady] = FLOWS;
    const [head, ...lines] = formatFlows(steady ? [{ ...steady, tap: 'vnet0' }] : [], plain);
    assert.match(head ?? '', / VM +REASON$/);
    assert.match(lines[0] ?? '', / vnet0$/);
  });

  test('every brief line has every field', () => {
    for (const flow of FLOWS) {
      assert.equal(formatBrief(flow).split(' ').length, BRIEF_FIELDS.length);
    }
  });

  test('colour is put around the state alone', () => {
    const marked = formatFlows(FLOWS, (colour, text) => `<${colour}>${text}</>`);
    assert.match(marked[0] ?? '', /^<bold>STATE/);
    assert.match(marked[3] ?? '', /^<yellow>syncing<\/> {2}1111/);
  });
});
