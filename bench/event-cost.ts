/*
 * What an event costs that has nothing to do with any flow: an address comes and goes, a link goes up
 * and down, on a host with a thousand interfaces and twenty thousand sockets, as containers make them.
 *
 * CPU time of the daemon, by /proc, over a few hundred events; without the time of whoever made them.
 */
import { readFileSync } from 'node:fs';
import { pause } from '../src/lab/wait.js';
import { closeFd } from '../src/libc/socket.js';
import { startDaemon } from './daemon.js';
import { connectByVeth, Host } from './host.js';
import { atMost, type Measurement, type Result, result } from './measurement.js';
import { LINK } from './pair.js';
import { listenOn, openConnection } from './tcp.js';

const FULL = { pairs: 500, connections: 10_000, events: 200, samples: 5 };
const QUICK = { pairs: 20, connections: 100, events: 20, samples: 1 };
const AIM = atMost(1_000, 'of a thread that does nothing else meanwhile');
const ADDRESS = '127.0.0.1';
const PORT = 5001;
/* USER_HZ is 100 everywhere. */
const TICK_US = 10_000;
const SETTLED_MS = 1_000;

export const eventCost: Measurement = {
  name: 'event-cost',
  summary: 'CPU time of an event that is about no flow, 1,000 interfaces, 20,000 sockets',
  measure: async (o) => {
    const size = o.quick ? QUICK : FULL;
    const [host, peer] = [new Host('crowded'), new Host('peer')];
    const sockets: number[] = [];
    try {
      connectByVeth(host, LINK, peer, LINK);
      host.ip(`addr add 10.91.0.1/24 dev ${LINK}`, 'link add un0 type veth peer name un1');
      host.ip('link set un0 up', 'link set un1 up', ...veths(size.pairs));
      sockets.push(...openSockets(host, size.connections));
      const daemon = await startDaemon(host, { watched: false });
      const { pid } = await daemon.status();
      await pause(SETTLED_MS);
      return await sample(host, pid, size);
    } finally {
      for (const fd of sockets) closeFd(fd);
      host.remove();
      peer.remove();
    }
  },
};

const veths = (pairs: number): string[] =>
  Array.from({ length: pairs }, (_, i) => `link add a${i} type veth peer name b${i}`);

/* Nobody accepts them: the kernel has both ends all the same. */
function openSockets(host: Host, count: number): number[] {
  host.sysctl({ 'core/somaxconn': String(2 * count) });
  return host.inside(() => {
    const listener = listenOn({ address: ADDRESS, port: PORT }, 2 * count);
    const opened = [listener];
    for (let i = 0; i < count; i++) opened.push(openConnection({ address: ADDRESS, port: PORT }));
    return opened;
  });
}

async function sample(host: Host, pid: number, size: typeof FULL): Promise<Result[]> {
  const rounds = Array.from({ length: size.events / 2 }, (_, i) => i);
  const addresses = rounds.flatMap((i) => {
    const address = `10.92.${i >> 8}.${i & 255}/32 dev un0`;
    return [`addr add ${address}`, `addr del ${address}`];
  });
  const links = rounds.flatMap(() => ['link set un1 down', 'link set un1 up']);
  const [ofAddress, ofLink]: [number[], number[]] = [[], []];
  for (let i = 0; i < size.samples; i++) {
    ofAddress.push((await cpuUs(host, pid, addresses)) / size.events);
    ofLink.push((await cpuUs(host, pid, links)) / size.events);
  }
  return [
    result('event of an unrelated address', 'us', ofAddress, AIM),
    result('event of an unrelated link', 'us', ofLink, AIM),
  ];
}

/** One `ip` each, so that no two are one burst. */
async function cpuUs(host: Host, pid: number, lines: readonly string[]): Promise<number> {
  const before = ticks(pid);
  for (const line of lines) host.ip(line);
  await pause(SETTLED_MS / 2);
  return (ticks(pid) - before) * TICK_US;
}

/* proc(5): utime and stime, behind the name in parentheses. */
function ticks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
