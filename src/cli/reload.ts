/* `tiflow reload`: the daemon reads its configuration again; flows go on. */

import type { Command } from 'commander';
import { DaemonClient } from '../daemon/api/client.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

export function addReload(program: Command): void {
  addRunDirOption(program.command('reload'))
    .description('have the daemon read its configuration again, as SIGHUP does; flows go on')
    .action(async (o: RunDirOption) => {
      await new DaemonClient(runDirOf(o)).reload();
      process.stdout.write('the configuration was read again\n');
    });
}
