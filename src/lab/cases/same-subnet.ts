/**
 * The client is in the subnet that the server leaves: to its kernel the old address is on its own
 * link, where nobody answers any more, then a stranger does. The flow goes round that (a
 * detour), and everything else to the old address straight to the stranger. Then the other way
 * round: the server comes into the client's subnet, and there gets another address.
 */
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, pause, until } from '../wait.js';

/** Neighbour discovery has failed after 3 s: what the client sends is stuck in front of it. */
const AWAY_MS = 4_000;

const RATE = 1e6;

export const sameSubnet: Case = {
  name: 'same-subnet',
  summary: 'the server leaves the client’s subnet, a stranger takes its address; and it comes back',
  options: { daemons: ['dartagnan', 'vm'] },
  async play(stage) {
    const left = await stage.transfer({ client: 'dartagnan' });
    left.streams.write(RATE);
    await left.streams.flowing(now());
    await leave(stage, left);
    await meetStranger(stage);
    await left.streams.flowing(now());

    const joined = await stage.transfer({ client: 'dartagnan' });
    joined.streams.write(RATE);
    await joined.streams.flowing(now());
    await arrive(stage, [left, joined]);
    await renumber(stage, [left, joined]);
    await stage.finish('a flow that began on the link', left);
    await stage.finish('a flow that began through the gateway', joined);
  },
};

async function leave(stage: Stage, transfer: PlayedTransfer): Promise<void> {
  stage.unplug();
  // As it would by itself after half a minute.
  stage.lab.run('dartagnan', ['ip', 'neigh', 'flush', 'dev', 'eth0']);
  await pause(AWAY_MS);
  const at = stage.plug('porthos');
  await transfer.streams.flowing(at);
  await stage.checkMoved('away from the link', transfer, 1);
  const detour = rules(stage).some((line) => line.includes(`dport ${transfer.port} lookup`));
  stage.check('a detour for the flow', detour, rules(stage).join('; '));
}

/** Another host has the old address now; only the flow goes round it. */
async function meetStranger(stage: Stage): Promise<void> {
  const { lab, family } = stage;
  const old = lab.vmAddress(family, 'athos');
  lab.plugStranger('athos', old);
  stage.step(`a stranger has ${old} now`);
  const client = lab.address('dartagnan', family);
  stage.check('the stranger pings the client', pings(stage, 'stranger', client));
  const calls = { client: 'dartagnan', server: 'stranger', address: old } as const;
  const transfer = await stage.transfer(calls);
  for (const end of transfer.streams.both) end.order({ do: 'send', bytes: 100_000 });
  const whole = await transfer.streams.finish();
  stage.check('the client calls the stranger', whole.ok, whole.detail);
  const ports = ['ipproto', 'tcp', 'sport', '40000', 'dport', `${transfer.port}`];
  const way = lab.run('dartagnan', ['ip', 'route', 'get', old, ...ports]);
  stage.check('and directly', !way.includes(' via '), way.split('\n')[0]);
  stage.check('and pings it', pings(stage, 'dartagnan', old));
}

/* The first one may come before the port of the bridge forwards. */
function pings(stage: Stage, from: 'stranger' | 'dartagnan', to: string): boolean {
  const output = stage.lab.run(from, ['busybox', 'ping', '-c', '3', '-i', '0.3', '-w', '5', to]);
  return /[1-3] packets received/.test(output);
}

/** The VM comes back, and the stranger goes: one flow has its old address again, one has not. */
async function arrive(stage: Stage, [left, joined]: PlayedTransfer[]): Promise<void> {
  const { lab } = stage;
  if (left === undefined || joined === undefined) return;
  lab.run('stranger', ['ip', 'link', 'del', 'eth0']);
  const at = stage.move('athos');
  await lab.daemon('vm').waitFor('proven', at, 20_000);
  for (const { streams } of [left, joined]) await streams.flowing(now());
  await stage.checkMoved('back at its old address', left, 2);
  await stage.checkMoved('into the client’s subnet', joined, 1);
  const gone = () => rules(stage).length === 0;
  const none = await until('the end of the detour', gone, 5_000).catch(() => false);
  stage.check('no detour any more', none === true, rules(stage).join('; '));
  await checkDirect(stage, [left, joined]);
}

/** The VM gets another address where it is. */
async function renumber(stage: Stage, transfers: PlayedTransfer[]): Promise<void> {
  const { lab, family } = stage;
  const old = lab.vmAddress(family, 'athos');
  const [fresh, length] = family === 4 ? ['192.0.2.77', 24] : ['2001:db8:1::77', 64];
  stage.step(`the VM's address becomes ${fresh}`);
  const at = now();
  lab.run('vm', ['ip', 'addr', 'del', `${old}/${length}`, 'dev', 'eth0']);
  lab.run('vm', ['ip', 'addr', 'add', `${fresh}/${length}`, 'dev', 'eth0']);
  for (const { streams } of transfers) await streams.flowing(at + 500);
  for (const transfer of transfers) await stage.checkSettled('another address', transfer);
  await checkDirect(stage, transfers);
}

/** Neither end sends by the gateway what is on its own link. */
async function checkDirect(stage: Stage, transfers: PlayedTransfer[]): Promise<void> {
  const before = forwarded(stage);
  const since = now();
  for (const { streams } of transfers) await streams.flowing(since + 200);
  const packets = forwarded(stage) - before;
  stage.check('nothing goes through the gateway', packets < 10, `${packets} packets`);
}

/** How many packets the gateway has forwarded. */
function forwarded(stage: Stage): number {
  const { lab, family } = stage;
  const file = family === 4 ? 'snmp' : 'snmp6';
  const text = lab.run('athos', ['cat', `/proc/net/${file}`]);
  if (family === 6) return Number(/^Ip6OutForwDatagrams\s+(\d+)/m.exec(text)?.[1]);
  const [names = [], values = []] = text.split('\n').map((line) => line.split(' '));
  return Number(values[names.indexOf('ForwDatagrams')]);
}

/** The client's policy rules that are ours. */
const rules = (stage: Stage): string[] =>
  stage.lab
    .run('dartagnan', ['ip', `-${stage.family}`, 'rule'])
    .split('\n')
    .filter((line) => /^10[0-3]:/.test(line))
    .map((line) => line.replaceAll('\t', ' '));
