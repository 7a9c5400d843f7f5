/* `tiflow monitor`: what happens, as it happens, one JSON object a line. */

import { once } from 'node:events';
import type { Command } from 'commander';
import { DaemonClient } from '../daemon/api/client.js';
import { EXIT, VerbError } from './exit.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

export function addMonitor(program: Command): void {
  addRunDirOption(program.command('monitor'))
    .description('follow moves as they happen, one JSON object a line, until interrupted')
    .option('--json', 'the only format; accepted as everywhere')
    .action(async (o: RunDirOption) => {
      const ended = new AbortController();
      process.once('SIGINT', () => ended.abort());
      process.once('SIGTERM', () => ended.abort());
      for await (const event of new DaemonClient(runDirOf(o)).monitor(ended.signal)) {
        // A reader that is slow must slow us down, so that the daemon counts what it loses.
        if (!process.stdout.write(`${JSON.stringify(event)}\n`))
          await once(process.stdout, 'drain');
      }
      if (!ended.signal.aborted) throw new VerbError('the daemon has stopped', EXIT.notRunning);
    });
}
