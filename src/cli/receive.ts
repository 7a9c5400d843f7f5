/* `tiflow receive`: the other side of `tiflow migrate`, which starts it over ssh and talks to it on
 * its standard input and output.
 */

import { join } from 'node:path';
import type { Command } from 'commander';
import { ChannelLost } from '../migrate/channel.js';
import { Journals } from '../migrate/journal.js';
import { Receiver } from '../migrate/receiver.js';
import { recoverHere } from '../migrate/recover-here.js';
import { vmDaemonAt } from '../migrate/vm-daemon.js';
import { startDaemon } from './background.js';
import { VerbError } from './exit.js';
import { requirePrivileges } from './privileges.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

interface ReceiveOptions extends RunDirOption {
  recover?: string;
}

export function addReceive(program: Command): void {
  addRunDirOption(program.command('receive'))
    .description('the destination of a migration; started there by `tiflow migrate`')
    .option(
      '--recover <id>',
      'after a failure, by hand: runs the VM here? if not, removes what is left',
    )
    .action(receive);
}

async function receive(o: ReceiveOptions): Promise<void> {
  requirePrivileges('receive');
  const runDir = runDirOf(o);
  const daemon = vmDaemonAt(runDir);
  const journals = new Journals(runDir);
  if (o.recover !== undefined) {
    const { state } = await recoverHere(o.recover, { journals, daemon });
    process.stdout.write(`${state}\n`);
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
