/**
 * The paper's case study: an ssh session and a bulk transfer go on while the server moves from
 * athos to porthos. What the paper shows in its figures 3 to 6 is exhibited on the way.
 */
import type { MonitorEvent, MonitorEventName } from '../../daemon/view/view.js';
import type { Moment } from '../scene.js';
import { Session } from '../session.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, pause } from '../wait.js';
import { moveAndWait } from './moves.js';

export const paper: Case = {
  name: 'paper',
  summary: 'the server moves; an ssh session and a bulk transfer are running',
  options: { daemons: ['aramis', 'vm'] },
  async play(stage) {
    const session = await Session.open(stage.lab, stage.family);
    stage.step('ssh session from aramis into vm is open');
    const transfer = await stage.transfer();
    transfer.streams.write(4e6);
    await transfer.streams.flowing(now());
    stage.step('bulk transfer is running in both directions');
    await session.type();
    const before = await session.environment();
    await exhibits(stage, 'before', before);
    await pause(300);

    const at = await moveAndWait(stage, transfer, 'porthos');
    await session.counting(now());
    await session.type();
    const after = await session.environment();
    await exhibits(stage, 'after', after);
    const same = before.length > 0 && before.join() === after.join();
    stage.check('the session kept its environment', same, after.at(-1) ?? 'none');
    await stage.checkMoved('transfer', transfer, 1);
    checkMonitor(stage, transfer, at);
    await end(stage, session, transfer);
    stage.timeline = timeline(stage, transfer, at);
  },
};

/** Every step of the move is an event of the mover's monitor. */
function checkMonitor(stage: Stage, transfer: PlayedTransfer, at: number): void {
  const steps = ['syn-sent', 'syn-ack-received', 'confirm-sent', 'mapped', 'proven'];
  const seen = stage.lab
    .daemon('vm')
    .events.filter((e) => e.at_ms >= at && e.kernel?.includes(`:${transfer.port} `))
    .map((e) => e.event as string);
  const missing = steps.filter((step) => !seen.includes(step));
  stage.check('the monitor told every step', missing.length === 0, missing.join(', '));
}

async function end(stage: Stage, session: Session, transfer: PlayedTransfer): Promise<void> {
  await stage.finish('bulk transfer', transfer);
  const { ok, detail } = await session.finish();
  stage.check('ssh session complete and in order', ok, detail);
  stage.noteSilence(session);
}

/** Interface, connections at both ends and environment: the paper's figures 3 to 6. */
async function exhibits(
  stage: Stage,
  when: 'before' | 'after',
  environment: string[],
): Promise<void> {
  const show = (figure: number, title: string, command: string, lines: () => Lines) =>
    stage.exhibit({ figure, title, command, when }, lines);
  await show(1, 'Addresses of the server (vm)', 'ip -o addr', () => addresses(stage));
  for (const [i, host] of (['vm', 'aramis'] as const).entries()) {
    const title = `Connections at the ${host === 'vm' ? 'server (vm)' : 'client (aramis)'}`;
    await show(2 + i, title, 'ss -tn', () => connections(stage, host));
    await show(2 + i, title, 'tiflow flows', () => flows(stage, host));
  }
  await show(4, 'Environment of the ssh session', 'env | grep ^SSH_', () => environment);
}

type Lines = string[] | Promise<string[]>;

/** `ip -o addr` without its lifetimes and flags. */
function addresses(stage: Stage): string[] {
  const shown = stage.lab.run('vm', ['ip', '-o', 'addr']).split('\n').filter(Boolean);
  return shown.map((line) => {
    const [, name = '', version = '', address = ''] = line.split(/\s+/);
    return `${name.padEnd(6)}${version.padEnd(7)}${address}`;
  });
}

/** `ss -tn` without the queues. */
function connections(stage: Stage, host: 'vm' | 'aramis'): string[] {
  const shown = stage.lab.run(host, ['ss', '-Htn']).split('\n').filter(Boolean);
  return shown.map((line) => {
    const [state = '', , , local = '', remote = ''] = line.split(/\s+/);
    return `${state.padEnd(7)}${local.padEnd(34)} ${remote}`;
  });
}

/** `tiflow flows` in three lines a flow: its tuples side by side are wider than a page. */
async function flows(stage: Stage, host: 'vm' | 'aramis'): Promise<string[]> {
  const views = await stage.lab.daemon(host).flows();
  return views.flatMap((flow) => [
    `TIFID ${flow.tifid}  ${flow.state}, ${flow.moves} ${flow.moves === 1 ? 'move' : 'moves'}${
      flow.last_gap_ms === null ? '' : `, gap ${Math.round(flow.last_gap_ms)} ms`
    }`,
    `  kernel ${flow.kernel}`,
    `  wire   ${flow.wire}`,
  ]);
}

function timeline(stage: Stage, transfer: PlayedTransfer, at: number): Moment[] {
  const connection = `:${transfer.port}`;
  const of = (host: 'vm' | 'aramis', name: MonitorEventName): MonitorEvent | undefined =>
    stage.lab.daemon(host).events.find(
      // Of the transfer's flow, where the event is one of a flow.
      (e) => e.event === name && e.at_ms >= at && (!e.kernel || e.kernel.includes(connection)),
    );
  const v6 = stage.family === 6;
  const address = stage.lab
    .daemon('vm')
    .events.find(
      (e) => e.event === 'address-added' && e.at_ms >= at && e.address?.includes(':') === v6,
    );
  const rows: Array<[Moment['host'], string, number | undefined]> = [
    ['lab', 'cable pulled at athos', at],
    ['vm', 'link down', of('vm', 'carrier-down')?.at_ms],
    ['vm', 'link up at porthos', of('vm', 'carrier-up')?.at_ms],
    ['vm', v6 ? 'address by router advertisement' : 'address by DHCP', address?.at_ms],
    ['vm', 'SYN with TI_SYNC out', of('vm', 'syn-sent')?.at_ms],
    ['aramis', 'SYN valid, SYN/ACK out', of('aramis', 'candidate')?.at_ms],
    ['vm', 'SYN/ACK valid', of('vm', 'syn-ack-received')?.at_ms],
    ['vm', 'CONFIRM out', of('vm', 'confirm-sent')?.at_ms],
    ['vm', 'kick', of('vm', 'kicked')?.at_ms],
    ['aramis', 'CONFIRM valid, mapping committed', of('aramis', 'committed')?.at_ms],
    ['aramis', 'kick', of('aramis', 'kicked')?.at_ms],
    ['vm', 'first packet on the new path', of('vm', 'proven')?.at_ms],
    ['lab', 'first byte at a program', transfer.streams.firstByteAfter(at)],
  ];
  return rows
    .flatMap(([host, what, ms]) => (ms === undefined ? [] : [{ after_ms: ms - at, host, what }]))
    .sort((a, b) => a.after_ms - b.after_ms)
    .map((moment) => ({ ...moment, after_ms: Math.round(moment.after_ms * 10) / 10 }));
}
