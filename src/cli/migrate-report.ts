/* What `tiflow migrate` prints: a line that is written over on a terminal, lines otherwise, one JSON
 * object a line with --json; and its exit code.
 */

import { formatDuration } from '../daemon/config/duration.js';
import type { LastEvent, MigrationEvent, Report, StageName } from '../migrate/event.js';
import type { Facts } from '../migrate/migration.js';
import type { Outcome, StageFailure } from '../migrate/stages.js';
import type { MigrationRequest } from '../migrate/survey.js';
import { EXIT } from './exit.js';

const MIB = 2 ** 20;
const PROGRESS_INTERVAL_MS = 500;

export class MigrationPrinter {
  readonly #json: boolean;
  readonly #startedAt = performance.now();
  #progressAt = Number.NEGATIVE_INFINITY;
  #isOpenLine = false;

  constructor(json: boolean) {
    this.#json = json;
  }

  tookMs(): number {
    return Math.round(performance.now() - this.#startedAt);
  }

  event(event: MigrationEvent): void {
    if (event.event === 'progress' && !this.#isTime()) return;
    if (this.#json) this.#line(event);
    else if (event.event === 'progress') this.#progress(event);
    else if (event.event === 'note') this.note(event.message);
    else if (event.event === 'failed') this.note(`${event.stage} failed: ${event.message}`);
    else if (event.event === 'undone') {
      const why = event.message === undefined ? 'undone' : `could not be undone: ${event.message}`;
      this.note(`${event.stage} ${why}`);
    } else if (event.event === 'begin' && process.stderr.isTTY) this.#over(`${event.stage} ...`);
  }

  note(text: string): void {
    if (this.#isOpenLine) process.stderr.write('\n');
    this.#isOpenLine = false;
    process.stderr.write(`tiflow: ${text}\n`);
  }

  /** Sets the exit code, too. */
  last(event: LastEvent): void {
    const unfinished = event.event === 'migrated' ? event.unfinished.length : 1;
    process.exitCode = unfinished === 0 ? EXIT.ok : EXIT.failure;
    if (this.#json) this.#line(event);
    else if (event.event === 'failed') this.note(failedText(event));
    else {
      if (this.#isOpenLine) process.stderr.write('\n');
      process.stdout.write(`${migratedText(event)}\n`);
      for (const { stage, message } of event.unfinished) {
        this.note(`${stage}: ${message}; finish it: tiflow migrate --recover ${event.id}`);
      }
    }
  }

  wouldGo(event: LastEvent): void {
    if (this.#json) this.#line({ ...event, event: 'checked' });
    else process.stdout.write(`${event.name} can move to ${event.to}; nothing was changed\n`);
  }

  #isTime(): boolean {
    const now = performance.now();
    if (now - this.#progressAt < PROGRESS_INTERVAL_MS) return false;
    this.#progressAt = now;
    return true;
  }

  #line(event: object): void {
    const at_ms = Math.round(performance.now() - this.#startedAt);
    process.stdout.write(`${JSON.stringify({ version: 1, at_ms, ...event })}\n`);
  }

  #progress(event: Extract<MigrationEvent, { event: 'progress' }>): void {
    if (!process.stderr.isTTY) return;
    const { stage, total_bytes: total, remaining_bytes: left, rate, downtime_ms: downtime } = event;
    const percent = total === 0 ? 0 : Math.floor((100 * (total - left)) / total);
    const parts = [
      `${stage} [${String(percent).padStart(3)} %]`,
      `${Math.ceil(left / MIB)} MiB left`,
      ...(rate === undefined ? [] : [`${Math.round(rate / MIB)} MiB/s`]),
      ...(downtime === undefined ? [] : [`downtime ${downtime} ms`]),
    ];
    this.#over(parts.join(', '));
  }

  #over(text: string): void {
    process.stderr.write(`\r${text}\x1b[K`);
    this.#isOpenLine = true;
  }
}

function migratedText(event: Extract<LastEvent, { event: 'migrated' }>): string {
  const { name, to, total_ms, downtime_ms, paused_ms, flows, outside = [], qmp } = event;
  if (event.ended_there) return `${name} has run on ${to}, and has ended there since`;
  const parts = [
    `${name} runs on ${to} after ${formatDuration(total_ms)}`,
    ...(downtime_ms === undefined ? [] : [`downtime ${downtime_ms} ms by QEMU's count`]),
    ...(paused_ms === undefined ? [] : [`stopped for ${paused_ms} ms in all`]),
    ...(outside.length === 0 ? [] : [`outside ${outside.join(', ')}`]),
    ...(flows === undefined ? [] : [`flows: ${flowsText(flows)}`]),
    ...(qmp === undefined ? [] : [`QMP ${qmp}`]),
  ];
  return parts.join('\n  ');
}

function flowsText({ moved, failed, pending }: NonNullable<Report['flows']>): string {
  return `${moved} moved, ${failed} failed, ${pending} still moving`;
}

function failedText(event: Extract<LastEvent, { event: 'failed' }>): string {
  const where = { here: 'runs here as before', unknown: 'stays paused', nowhere: 'does not run' };
  const lines = [`${event.stage}: ${event.message}`, `${event.name} ${where[event.runs]}`];
  if (event.not_undone.length > 0) {
    lines.push(`not everything could be taken back: tiflow migrate --recover ${event.id}`);
  }
  return lines.join('\ntiflow: ');
}

/** The last line, made of what happened and what is known. */
export function finalEvent(o: {
  request: MigrationRequest;
  outcome: Outcome<StageName>;
  facts: Facts;
  tookMs: number;
}): LastEvent {
  const { outcome } = o;
  const report = reportOf(o.request, o.facts, o.tookMs);
  if (outcome.result === 'done') {
    return { event: 'migrated', unfinished: outcome.unfinished.map(told), ...report };
  }
  const notUndone = outcome.result === 'undone' ? outcome.notUndone : [];
  const isLost = notUndone.some(({ stage }) => stage === 'memory');
  const runs = outcome.result === 'undecided' ? 'unknown' : isLost ? 'nowhere' : 'here';
  return {
    event: 'failed',
    ...told(outcome.failed),
    ...{ runs, not_undone: notUndone.map(told) },
    ...report,
  };
}

function told({ stage, error }: StageFailure<StageName>): { stage: StageName; message: string } {
  return { stage, message: error.message };
}

function reportOf({ host, id, vm }: MigrationRequest, facts: Facts, tookMs: number): Report {
  const { name = vm, memory, flows, placement, outside, qmp, disk_bytes, paused_ms } = facts;
  const moved = flows && { moved: flows.moved, failed: flows.failed, pending: flows.pending };
  return {
    ...{ to: host, id, name, driver: 'qmp', total_ms: tookMs },
    ...(placement && { placement }),
    ...(memory?.downtime !== undefined && { downtime_ms: memory.downtime }),
    ...(paused_ms !== undefined && { paused_ms: Math.round(paused_ms) }),
    ...(memory?.ram && { memory_bytes: memory.ram.transferred }),
    ...(disk_bytes !== undefined && { disk_bytes }),
    ...(moved && { flows: moved }),
    ...(outside && { outside }),
    ...(qmp !== undefined && { qmp }),
    ...(facts.ended_there === true && { ended_there: true }),
  };
}
