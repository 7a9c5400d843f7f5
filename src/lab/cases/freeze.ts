/**
 * A planned move: the flows are frozen before the VM's cable is pulled. The client's kernel, which
 * sends at full speed, sees a receiver without room: it loses nothing and keeps its congestion window.
 * Next to it the same move unannounced, for comparison.
 */
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, pause } from '../wait.js';

const AWAY_MS = 4_000;
const RATE = 3e6;
const WARM_UP_MS = 2_000;
const FREEZE_MS = 30_000;

export const freeze: Case = {
  name: 'freeze',
  summary:
    'a planned move: frozen first, the other end loses nothing and keeps its congestion window',
  options: { daemons: ['aramis', 'vm'], wire: { impairment: 'delay=10ms', seed: 1 } },
  async play(stage) {
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await transfer.streams.flowing(now());
    await pause(WARM_UP_MS);
    const surprised = await moveAway(stage, transfer, 'porthos');
    await pause(WARM_UP_MS);
    const { frozen, quiet } = await stage.lab.daemon('vm').freeze(FREEZE_MS);
    stage.check('the flow is frozen and quiet', frozen === 1 && quiet, `${frozen}, ${quiet}`);
    const planned = await moveAway(stage, transfer, 'athos');
    await stage.checkMoved('transfer', transfer, 2);

    note(stage, 'surprised', surprised);
    note(stage, 'planned', planned);
    const kept = planned.away.cwnd >= planned.before.cwnd;
    stage.check('the congestion window is kept', kept, inWords(planned));
    const lost = planned.away.retransmitted - planned.before.retransmitted;
    stage.check('nothing is sent twice', lost === 0, `${lost} segments`);
    const collapsed = surprised.away.cwnd < surprised.before.cwnd;
    stage.check('which a surprise costs', collapsed, inWords(surprised));
    await stage.finish('transfer', transfer);
  },
};

/** What the client's kernel says of its connection (ss -ti). */
interface Congestion {
  cwnd: number;
  /** segments, since the connection began */
  retransmitted: number;
}

interface Trip {
  before: Congestion;
  away: Congestion;
  after: Congestion;
}

async function moveAway(
  stage: Stage,
  transfer: PlayedTransfer,
  to: 'athos' | 'porthos',
): Promise<Trip> {
  const before = congestion(stage, transfer);
  stage.unplug();
  await pause(AWAY_MS);
  const away = congestion(stage, transfer);
  const at = stage.plug(to);
  await transfer.streams.flowing(at);
  return { before, away, after: congestion(stage, transfer) };
}

function congestion({ lab }: Stage, { port }: PlayedTransfer): Congestion {
  const shown = lab.run('aramis', ['ss', '-Htin', `dport = :${port}`]);
  const number = (pattern: RegExp): number => Number(pattern.exec(shown)?.[1] ?? 0);
  return { cwnd: number(/ cwnd:(\d+)/), retransmitted: number(/ retrans:\d+\/(\d+)/) };
}

const inWords = ({ before, away, after }: Trip): string =>
  `cwnd ${before.cwnd} before, ${away.cwnd} away, ${after.cwnd} after`;

function note(stage: Stage, name: string, { before, away }: Trip): void {
  stage.figures[`${name}_cwnd_before`] = before.cwnd;
  stage.figures[`${name}_cwnd_away`] = away.cwnd;
}
