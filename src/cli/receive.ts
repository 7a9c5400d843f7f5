/* `tiflow receive`: the other side of `tiflow migrate`, which starts it over ssh and talks to it on
 * its standard input and output.
 */

import { join } from 'node:path';
import type { Command } from 'commander';
import { ChannelLost } from '../migrate/channel.js';
import { recoverHere } from '../migrate/destination-log.js';
import { Journals } from '../migrate/journal.js';
import { Receiver } from '../migrate/receiver.js';
import { vmDaemonAt } from '../migrate/vm-daemon.js';
import { startDaemon } from './background.js';
import { VerbError } from './exit.js';
import { requirePrivileges } from './privileges.js';
import { addStateDirOption, directoriesOf, type StateDirOption } from './run-dir.js';

interface ReceiveOptions extends StateDirOption {
  recover?: string;
}

export function addReceive(program: Command): void {
  addStateDirOption(program.command('receive'))
    .description('the destination of a migration; started there by `tiflow migrate`')
    .option(
      '--recover <id>',
      'after a failure, by hand: has the VM run here? if never, removes what is left',
    )
    .action(receive);
}

async function receive(o: ReceiveOptions): Promise<void> {
  requirePrivileges('receive');
  const directories = directoriesOf(o);
  const { runDir } = directories;
  const daemon = vmDaemonAt(runDir);
  const journals = new Journals(directories);
  if (o.recover !== undefined) {
    const { word } = await recoverHere(o.recover, { journals, daemon });
    process.stdout.write(`${word}\n`);
    return;
  }
  const receiver = new Receiver({
    journals,
    daemon,
    startDaemon: async () => {
      if ((await daemon.taps()) === undefined) await startDaemon({ runDir });
    },
    logPath: (name) => join(runDir, `qemu-${name.replaceAll(/[^\w.-]/g, '_')}.log`),
  });
  // The source's end closes our output; that must not end us before we have cleaned up.
  process.stdout.removeAllListeners('error');
  process.stdout.on('error', () => undefined);
  const ends = { input: process.stdin, output: process.stdout, abandoned: askedToStop() };
  await receiver.serve(ends).catch((error: unknown) => {
    if (!(error instanceof ChannelLost)) throw error;
    throw new VerbError(
      `receive: ${error.message} (it is started by: tiflow migrate VM --to HOST)`,
    );
  });
  process.exit(0); // The QEMU that was a child lives on.
}

function askedToStop(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => resolve(signal));
    }
  });
}
