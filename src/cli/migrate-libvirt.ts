/* `tiflow migrate` of a VM that libvirt manages: virsh drives, its hook does the rest. */

import type { LastEvent, Report, StageName } from '../migrate/event.js';
import { runVirsh, virshCommands } from '../migrate/libvirt.js';
import type { MigrationRequest } from '../migrate/survey.js';
import { UsageError } from './exit.js';
import { MigrationPrinter } from './migrate-report.js';

export async function migrateByLibvirt(
  request: MigrationRequest,
  o: { json?: boolean; dryRun?: boolean },
): Promise<void> {
  const { migrate, resume, refused } = virshCommands(request);
  if (refused.length > 0) {
    const what = `${refused.join(', ')}: not for a VM that libvirt manages`;
    throw new UsageError(`${what} (its definition and hooks say that)`);
  }
  const printer = new MigrationPrinter(o.json === true);
  const report = (): Report => ({
    ...{ to: request.host, id: request.id, name: request.vm, driver: 'libvirt' },
    total_ms: printer.tookMs(),
  });
  if (o.dryRun === true) {
    printer.wouldGo({ event: 'migrated', unfinished: [], ...report() });
    return;
  }
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => abort.abort());
  const progress = (text: string) => {
    if (o.json !== true) process.stderr.write(text);
  };
  const stage = async (name: StageName, argv: string[]): Promise<string | undefined> => {
    printer.event({ stage: name, event: 'begin' });
    const why = await runVirsh(argv, { signal: abort.signal, progress });
    const outcome = why === undefined ? { event: 'done' as const } : failed(why);
    printer.event({ stage: name, ...outcome });
    return why && `${argv.join(' ')}: ${why}`;
  };
  // libvirt's own rule: a failed migration leaves the VM where it was.
  const notMoved = await stage('memory', migrate);
  if (notMoved !== undefined) {
    printer.last({ ...lost('memory', notMoved), runs: 'here', ...report() });
    return;
  }
  const notResumed = await stage('continue', resume);
  const last: LastEvent =
    notResumed === undefined
      ? { event: 'migrated', unfinished: [], ...report() }
      : {
          ...lost('continue', `it is paused on ${request.host}; ${notResumed}`),
          runs: 'nowhere',
          ...report(),
        };
  printer.last(last);
}

const failed = (message: string) => ({ event: 'failed' as const, message });

const lost = (stage: StageName, message: string) => ({
  event: 'failed' as const,
  stage,
  message,
  not_undone: [],
});
