/**
 * Plays one row: transfers of both families, to and from the VM, past the middlebox; the VM
 * moves; what became of each is its cell. All in one lab and one move, unless the box stands
 * elsewhere when the roles are exchanged.
 */
import { Lab } from '../lab.js';
import { onEveryExit } from '../runner.js';
import type { Check } from '../scene.js';
import { type PlayedTransfer, Stage } from '../stage.js';
import type { Family } from '../topology.js';
import { now, until } from '../wait.js';
import { type End, idleRules, NAT_ADDRESS } from './boxes.js';
import { type Cell, type Cells, COLUMNS, type Column, FAMILIES } from './cell.js';
import { idleWire, type Row } from './rows.js';

export interface PlayOptions {
  seed: number;
  onStep(text: string): void;
}

export interface PlayedRow {
  cells: Cells;
  checks: Check[];
  moves: number;
}

/** Short, so that what cannot be moved says so while we watch; long enough for any handshake. */
const GIVE_UP_S = 8;
/** For DHCP before it, and for a loaded machine. */
const TOLD_SLACK_MS = 6_000;
const SETTLED_BOUND_MS = 45_000;
const RATE = 300_000;
/** Both ways, before the move and after it. */
const VOLUME = 100_000;

const ENDS: Record<Column, Record<Column, End>> = {
  server: { server: 'vm', client: 'aramis' },
  client: { server: 'aramis', client: 'vm' },
};

/** One transfer and what it is to show. */
interface Actor {
  column: Column;
  family: Family;
  transfer: PlayedTransfer;
  /** why it is legacy at the VM; undefined: it is a TI flow */
  legacy: string | undefined;
}

export async function playRow(row: Row, o: PlayOptions): Promise<PlayedRow> {
  const groups = row.apart ? COLUMNS.map((column) => [column]) : [COLUMNS];
  const cells: Cells = { server: { 4: MISSING, 6: MISSING }, client: { 4: MISSING, 6: MISSING } };
  const checks: Check[] = [];
  for (const columns of groups) {
    const stage = await inLab(row, o, (lab) => playColumns(row, columns, lab, cells, o));
    checks.push(...stage.checks);
  }
  return { cells, checks, moves: groups.length };
}

const MISSING: Cell = { kind: 'broken', detail: 'not played' };
let labs = 0;

async function inLab<T>(row: Row, o: PlayOptions, play: (lab: Lab) => Promise<T>): Promise<T> {
  const { seed } = o;
  const lab = Lab.prepare({
    name: `matrix-${process.pid}-${++labs}`,
    owned: true,
    daemons: ['aramis', 'vm'],
    settings: { give_up: `${GIVE_UP_S}s`, ...row.settings },
    ...(row.wire && { wire: { ...row.wire, seed } }),
  });
  const release = onEveryExit(() => lab.teardown());
  try {
    await lab.build();
    return await play(lab);
  } catch (error) {
    for (const line of lab.lastWords()) o.onStep(`${row.name}: ${line}`);
    throw error;
  } finally {
    lab.teardown();
    release();
  }
}

async function playColumns(
  row: Row,
  columns: readonly Column[],
  lab: Lab,
  cells: Cells,
  o: PlayOptions,
): Promise<Stage> {
  const onStep = (text: string): void => o.onStep(`${row.name}: ${text}`);
  const stage = new Stage({ lab, family: 4, seed: o.seed, onStep, onExhibit: undefined });
  for (const column of columns) {
    if (row.apart || column === 'server') row.build?.(lab, ENDS[column]);
  }
  const wanted = columns.flatMap((column) => FAMILIES.map((family) => ({ column, family })));
  const actors = await Promise.all(wanted.map((w) => open(stage, row, w)));
  await row.before?.(stage);
  for (const { transfer } of actors) transfer.streams.write(RATE);
  await Promise.all(actors.map(({ transfer }) => transfer.streams.carried(VOLUME)));
  for (const actor of actors) actor.legacy = await legacyReason(stage, actor);
  const at = stage.move('porthos');
  const usable = await lab.waitForAddresses('porthos');
  await Promise.all(
    actors.map(async (actor) => {
      const cell = await judge(stage, actor, at, usable).catch(broken);
      cells[actor.column][actor.family] = cell;
    }),
  );
  const idle = (row.idle ?? idleRules)(lab);
  if (row.wire) idle.push(...idleWire(lab, row.wire.impairment));
  stage.check('the box has acted', idle.length === 0, idle.join('; '));
  return stage;
}

const broken = (error: unknown): Cell => ({ kind: 'broken', detail: (error as Error).message });

/**
 * Two SYNs that a lossy wire has lost look like a firewall that drops our option: such a
 * connection is plain, and none that the row is about.
 */
async function open(
  stage: Stage,
  row: Row,
  wanted: Pick<Actor, 'column' | 'family'>,
): Promise<Actor> {
  if (!row.wire) return openOnce(stage, row, wanted);
  return until('a TI flow over the lossy wire', async () => {
    const actor = await openOnce(stage, row, wanted);
    const { transfer } = actor;
    const ends = [await stage.flow('aramis', transfer), await stage.flow('vm', transfer)];
    if (ends.every((flow) => flow?.reason !== 'syn-lost')) return actor;
    stage.step('two SYNs were lost, the connection is plain: another one');
    transfer.streams.stop();
    return undefined;
  });
}

async function openOnce(
  stage: Stage,
  row: Row,
  { column, family }: Pick<Actor, 'column' | 'family'>,
): Promise<Actor> {
  const ends = ENDS[column];
  const natted = row.natted?.includes('server') && {
    address: NAT_ADDRESS[ends.server][family],
    listen: stage.lab.address(ends.server, family),
  };
  const transfer = await stage.transfer({ ...ends, ...natted, family });
  return { column, family, transfer, legacy: undefined };
}

async function legacyReason(stage: Stage, { transfer }: Actor): Promise<string | undefined> {
  const flow = await stage.flow('vm', transfer);
  return flow?.state === 'legacy' ? (flow.reason ?? 'no reason') : undefined;
}

/** Waits until it has moved or its program on the VM has been told; then looks closely. */
async function judge(stage: Stage, actor: Actor, at: number, usable: number): Promise<Cell> {
  const { streams } = actor.transfer;
  const mover = actor.column === 'server' ? streams.server : streams.client;
  const settled = await until(
    'it to move, or its program to be told',
    async () => {
      const error = (await mover.report()).errors[0];
      if (error) return { error };
      const flow = await stage.flow('vm', actor.transfer);
      return flow !== undefined && flow.moves > 0 && flow.state === 'steady' && { error };
    },
    SETTLED_BOUND_MS,
  );
  if (!settled.error) return afterMove(actor, at);
  const wrong = await streams.wrongBytes();
  streams.stop();
  if (wrong) return { kind: 'broken', detail: wrong };
  const told = settled.error.at_ms - usable;
  if (told > GIVE_UP_S * 1e3 + TOLD_SLACK_MS) {
    return { kind: 'broken', detail: `told only ${Math.round(told)} ms after the new address` };
  }
  if (actor.legacy !== undefined) return { kind: 'plain', reason: actor.legacy };
  return refusal(stage, actor, at, settled.error.code);
}

async function afterMove({ transfer }: Actor, at: number): Promise<Cell> {
  const { streams } = transfer;
  await streams.carried(VOLUME, SETTLED_BOUND_MS);
  const back = now();
  const whole = await streams.finish(SETTLED_BOUND_MS);
  if (!whole.ok) return { kind: 'broken', detail: whole.detail };
  return { kind: 'moved', gap_ms: Math.round(streams.silence(at, back)) };
}

/** Why the daemon gave up on it. Its event may come behind the program's error. */
async function refusal(stage: Stage, { transfer }: Actor, at: number, code: string): Promise<Cell> {
  const end = `:${transfer.port}`;
  const { events } = stage.lab.daemon('vm');
  const about = (kernel = ''): boolean => kernel.split(' > ').some((side) => side.endsWith(end));
  const failed = () =>
    events.find((e) => e.event === 'move-failed' && e.at_ms >= at && about(e.kernel));
  const why = await until(`the event move-failed after ${code} at the program`, failed);
  return { kind: 'refused', reason: why.reason ?? 'no reason' };
}
