/* `tiflow freeze`: before a planned move, so that no peer loses anything or backs off. */

import type { Command } from 'commander';
import { DaemonClient } from '../daemon/api/client.js';
import { parseDurationMs } from '../daemon/config/duration.js';
import { FREEZE_MS } from '../daemon/view/view.js';
import { UsageError } from './exit.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

interface FreezeOptions extends RunDirOption {
  for: string;
  tap?: string;
  json?: boolean;
}

export function addFreeze(program: Command): void {
  addRunDirOption(program.command('freeze'))
    .description('before a planned move: close the windows, so that nothing is in flight')
    .option('--for <duration>', 'when to go on if there is no move', '30s')
    .option('--tap <name>', 'the flows of the VM behind this tap, not our own')
    .option('--json', 'print one JSON object')
    .action(freeze);
}

async function freeze(o: FreezeOptions): Promise<void> {
  const forMs = parseDurationMs(o.for);
  if (forMs === undefined || forMs < FREEZE_MS.least || forMs > FREEZE_MS.most) {
    throw new UsageError(`--for ${o.for}: must be a duration from 1s to 10m`);
  }
  const view = await new DaemonClient(runDirOf(o)).freeze(forMs, o.tap);
  const text = `${view.frozen} frozen${view.quiet ? '' : ', not all of them quiet yet'}`;
  process.stdout.write(`${o.json ? JSON.stringify(view) : text}\n`);
}
