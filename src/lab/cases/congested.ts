/**
 * A path that is merely bad: loss, jitter, and a bottleneck that many connections overload. Nothing
 * may take that for a stall.
 */
import { runInside } from '../namespace.js';
import type { Case } from '../stage.js';
import { now, pause } from '../wait.js';

const CONNECTIONS = 20;
const CONGESTED_MS = 20_000;
/** Far more than the bottleneck lets through. */
const RATE = 5e5;
/**
 * Not the machine's default: BBR never has less than four segments under way, however much is
 * lost. Twenty such connections overload this bottleneck for good, and some retransmission timer
 * doubles for longer than anybody waits.
 */
const CONGESTION_CONTROL = 'reno';
/** A queue of 120 ms. */
const BOTTLENECK = ['tbf', 'rate', '4mbit', 'burst', '20k', 'limit', '60k'];

export const congested: Case = {
  name: 'congested',
  summary: 'a lossy path with an overloaded bottleneck is no stall: nothing fires',
  options: {
    daemons: ['aramis', 'vm'],
    wire: { impairment: 'delay=20ms,jitter=20ms,loss=3%', seed: 1 },
  },
  async play(stage) {
    const { lab } = stage;
    stage.chooseCongestionControl(CONGESTION_CONTROL);
    const transfer = await stage.transfer({
      ...{ client: 'vm', server: 'aramis', connections: CONNECTIONS, gapMs: 1_000 },
    });
    for (const device of ['aramis0', 'athos0']) {
      const queue = ['tc', 'qdisc', 'add', 'dev', device, 'root', ...BOTTLENECK];
      runInside(lab.namespaces.router, queue);
    }
    const begun = now();
    transfer.streams.write(RATE);
    await pause(CONGESTED_MS);
    transfer.streams.pause();
    await transfer.streams.quiet(60_000);
    for (const host of ['vm', 'aramis'] as const) {
      const fired = lab
        .daemon(host)
        .events.filter(({ event, at_ms }) => at_ms > begun && FIRED.has(event));
      const detail = fired.map(({ event }) => event).join(', ');
      stage.check(`nothing fires at ${host}`, fired.length === 0, detail);
    }
    stage.figures.lost_segments = retransmitted(lab.run('vm', ['cat', '/proc/net/snmp']));
    stage.check('segments were lost', stage.figures.lost_segments > 100);
    await stage.finish(`${CONNECTIONS} transfers`, transfer);
  },
};

const FIRED = new Set<string>(['stalled', 'syn-sent', 'flow-reset']);

/** RetransSegs of the host. */
function retransmitted(snmp: string): number {
  const [names = [], values = []] = snmp
    .split('\n')
    .filter((line) => line.startsWith('Tcp:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf('RetransSegs')]);
}
