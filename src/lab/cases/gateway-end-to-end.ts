/**
 * A host behind a machine that forwards runs tiflow itself and is left to do it, end to end, whether
 * that machine is a gateway, which protects the neighbours that do not, or a router that runs tiflow
 * for itself alone.  The host moves within its subnet, the peer away.
 */
import { address } from '../../wire/address.js';
import { seq } from '../../wire/seq.js';
import type { GatewayCase, GatewayStage } from '../gateway/stage.js';
import { Injector } from '../injector.js';
import { now, until } from '../wait.js';

export const gatewayEndToEnd: GatewayCase = {
  name: 'gateway-end-to-end',
  summary: 'a host behind a gateway has tiflow itself: it and its peer move, the gateway stands by',
  gateway: { daemons: ['inner', 'gw', 'peer'] },
  async play(stage) {
    await playMoves(stage, () => checkUntouched(stage));
  },
};

export const routerEndToEnd: GatewayCase = {
  name: 'router-end-to-end',
  summary: 'two hosts, and a router between them that has tiflow for itself: it stands by',
  gateway: { daemons: ['inner', 'gw', 'peer'], asHosts: true },
  async play(stage) {
    await playMoves(stage, async () => {
      await checkReset(stage);
      await checkUntouched(stage);
    });
  },
};

async function playMoves(stage: GatewayStage, then: () => Promise<void>): Promise<void> {
  const ends = ['inner', 'peer'] as const;
  const out = await stage.transfer({ client: 'inner', server: 'peer', ends });
  const into = await stage.transfer({ client: 'peer', server: 'inner', ends });
  const both = [out, into];
  for (const [i, host] of (['peer', 'inner', 'peer', 'inner'] as const).entries()) {
    const at = stage.renumber(host);
    await stage.goOn(`${host} moved`, at, both);
    for (const each of both) await stage.checkMoved(`${host} moved`, each, i + 1);
  }
  await then();
  await stage.goOn('at the end', now(), both);
  for (const each of both) await stage.finish(each);
}

/** What forwards has seen the set-ups and the synchronizations, and has taken none for its own. */
async function checkUntouched(stage: GatewayStage): Promise<void> {
  const { flows, counters, moves } = await stage.lab.daemon('gw').status();
  const taken = (counters['drop.sync'] ?? 0) + (counters['drop.event-lost'] ?? 0);
  stage.check('gw has no flow', flows.protected === 0, `${flows.protected} flows`);
  stage.check('and has moved none', moves.completed + moves.failed === 0);
  stage.check('it has taken no synchronization', taken === 0, `${taken} packets`);
  const named = ['legacy.inner', 'count.end-to-end'].map((name) => counters[name] ?? 0);
  stage.check(
    'it has let them pass',
    named.every((n) => n > 0),
    JSON.stringify(counters),
  );
}

/** No move above needs a TI_RST.  The router's firewall lets one pass behind a SYN; both are of no
 * flow, and end at the boundary of the host that they are for.
 */
async function checkReset(stage: GatewayStage): Promise<void> {
  const { lab, family } = stage;
  const taken = async () => (await lab.daemon('peer').status()).counters['drop.sync'] ?? 0;
  const before = await taken();
  const injector = await Injector.start(lab, 'inner');
  const ends = {
    ...{ source: address(lab.address('inner', family)), sourcePort: 7777 },
    ...{ destination: address(lab.address('peer', family)), destinationPort: 7777 },
  };
  const rest = { ack: seq(0), window: 1000, payload: new Uint8Array(0) };
  const mac = new Uint8Array(8);
  const of = { epoch: 1, initiatorHalf: 1, responderHalf: 2, tiack: 0, nonce: 3, mac };
  const syn = { ...ends, ...rest, flags: 'S', seq: seq(1) };
  injector.send({ ...syn, options: [{ kind: 'ti-sync', ...of }] });
  const rst = { ...ends, ...rest, flags: 'R', seq: seq(2) };
  injector.send({ ...rst, options: [{ kind: 'ti-rst', reason: 1, epoch: 1, mac }] });
  const both = async () => (await taken()) === before + 2;
  const arrived = await until('TI_SYNC and TI_RST at peer', both).catch(() => false);
  stage.check('a TI_RST reaches the host that it is for', arrived);
  injector.stop();
}
