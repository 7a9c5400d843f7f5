/**
 * Whether two daemons speak of a connection as one: the same TI flow, one wire, settled.
 */
import type { FlowView } from '../daemon/view/view.js';
import type { Scene } from './scene.js';
import { until } from './wait.js';
import type { WatchedDaemon } from './watched-daemon.js';

export interface FlowEnd {
  host: string;
  flow: () => Promise<FlowView | undefined>;
}

/** What a daemon says of the connection that has this port at one end; undefined: nothing. */
export async function flowOfPort(
  daemon: WatchedDaemon,
  port: number,
): Promise<FlowView | undefined> {
  const end = `:${port}`;
  const flows = await daemon.flows();
  return flows.find((f) => f.kernel.split(' > ').some((side) => side.endsWith(end)));
}

/** Checks that both ends come to hold one TI flow, steady and as wanted. */
export async function checkFlow(
  scene: Pick<Scene<unknown>, 'check'>,
  o: {
    name: string;
    ends: readonly FlowEnd[];
    wanted: (flow: FlowView) => boolean;
    /** there is a NAT between them, so that each has its own idea of the wire */
    isTranslated?: boolean;
  },
): Promise<void> {
  const both = () => Promise.all(o.ends.map((end) => end.flow()));
  const agree = ([a, b]: Array<FlowView | undefined>): boolean => {
    if (!a || !b || a.tifid === null || a.tifid !== b.tifid) return false;
    if (!o.isTranslated && !mirrored(a.wire, b.wire)) return false;
    return [a, b].every((f) => f.state === 'steady' && o.wanted(f));
  };
  const settled = async () => {
    const views = await both();
    return agree(views) && views;
  };
  const views = await until('the flow to settle', settled, 10_000).catch(both);
  const ok = agree(views);
  const texts = o.ends.map(({ host }, i) => `${host}: ${textOf(views[i])}`);
  scene.check(o.name, ok, ok ? `TIFID ${views[0]?.tifid}` : texts.join('; '));
}

const textOf = (f: FlowView | undefined): string =>
  f ? `${f.tifid} ${f.state}, ${f.moves} moves, ${f.wire}` : 'no flow';

/** Whether two tuples, each local end first, name one connection from its two ends. */
const mirrored = (a: string, b: string): boolean => mirror(a) === b;

/** The name of a connection at its other end. */
export const mirror = (tuple: string): string => tuple.split(' > ').reverse().join(' > ');
