/* `tiflow migrate` of a VM that libvirt manages: virsh drives, its hook does the rest. */

import type { LastEvent, Report } from '../migrate/event.js';
import { virshCommand, virshMigrate } from '../migrate/libvirt.js';
import type { MigrationRequest } from '../migrate/survey.js';
import { UsageError } from './exit.js';
import { MigrationPrinter } from './migrate-report.js';

export async function migrateByLibvirt(
  request: MigrationRequest,
  o: { json?: boolean; dryRun?: boolean },
): Promise<void> {
  const { argv, refused } = virshCommand(request);
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
  printer.event({ stage: 'memory', event: 'begin' });
  const progress = (text: string) => {
    if (o.json !== true) process.stderr.write(text);
  };
  const why = await virshMigrate(argv, { signal: abort.signal, progress });
  printer.event(
    why === undefined
      ? { stage: 'memory', event: 'done' }
      : { stage: 'memory', event: 'failed', message: why },
  );
  const last: LastEvent =
    why === undefined
      ? { event: 'migrated', unfinished: [], ...report() }
      : {
          ...{ event: 'failed', stage: 'memory', message: `${argv.join(' ')}: ${why}` },
          // libvirt's own rule: a failed migration leaves it where it was.
          ...{ runs: 'here', not_undone: [] },
          ...report(),
        };
  printer.last(last);
}
