/**
 * Gateway placement: untouched hosts behind a gateway talk to a peer that moves, as clients, as
 * servers, through address translation on the gateway itself, and to hosts behind another one.
 */
import type { GatewayCase, GatewayStage, GatewayTransfer } from '../gateway/stage.js';
import { now } from '../wait.js';

const GW_AND_PEER = { daemons: ['gw', 'peer'] } as const;
const ENDS = ['gw', 'peer'] as const;

export const gatewayClient: GatewayCase = {
  name: 'gateway-client',
  summary: 'a host behind a gateway has called a peer, which moves there and back',
  gateway: GW_AND_PEER,
  async play(stage) {
    const transfer = await stage.transfer({ client: 'inner', server: 'peer', ends: ENDS });
    await thereAndBack(stage, [transfer]);
  },
};

export const gatewayServer: GatewayCase = {
  name: 'gateway-server',
  summary: 'a peer has called a host behind a gateway, and moves there and back',
  gateway: GW_AND_PEER,
  async play(stage) {
    const transfer = await stage.transfer({ client: 'peer', server: 'inner', ends: ENDS });
    await thereAndBack(stage, [transfer]);
  },
};

export const gatewayNat: GatewayCase = {
  name: 'gateway-nat',
  summary: 'the gateway translates addresses, both ways; the peer moves there and back',
  gateway: GW_AND_PEER,
  async play(stage) {
    const { lab, family } = stage;
    const port = stage.freshPort();
    const [gateway, inner] = [lab.address('gw', family), lab.address('inner', family)];
    lab.translate('gw', family, [
      'oifname "up0" masquerade',
      `iifname "up0" tcp dport ${port} dnat to ${inner}`,
    ]);
    const out = await stage.transfer({ client: 'inner', server: 'peer', ends: ENDS });
    const called = { client: 'peer', server: 'inner', ends: ENDS } as const;
    const into = await stage.transfer({ ...called, port, address: gateway, listen: inner });
    const seen = (await stage.flow('peer', out))?.kernel ?? 'no flow';
    stage.check('the peer sees the gateway', seen.includes(gateway), seen);
    await thereAndBack(stage, [out, into]);
  },
};

export const gatewayBoth: GatewayCase = {
  name: 'gateway-both',
  summary: 'hosts behind two gateways talk; one gateway is renumbered, then the other',
  gateway: { daemons: ['gw', 'gw2'] },
  async play(stage) {
    const ends = ['gw', 'gw2'] as const;
    const transfer = await stage.transfer({ client: 'inner', server: 'inner2', ends });
    await stage.checkForwarded(transfer);
    for (const [i, gateway] of ends.entries()) {
      const at = stage.renumber(gateway);
      await stage.goOn(`${gateway} renumbered`, at, [transfer]);
      await stage.checkMoved(`${gateway} renumbered`, transfer, i + 1);
    }
    await stage.finish(transfer);
  },
};

/** The peer moves twice; a connection that is opened in between is no worse. */
async function thereAndBack(
  stage: GatewayStage,
  transfers: readonly GatewayTransfer[],
): Promise<void> {
  for (const transfer of transfers) await stage.checkForwarded(transfer);
  const all = [...transfers];
  for (const [i, what] of ['peer away', 'peer back'].entries()) {
    const at = stage.renumber('peer');
    await stage.goOn(what, at, all);
    for (const transfer of transfers) await stage.checkMoved(what, transfer, i + 1);
    if (i > 0) continue;
    all.push(await stage.transfer({ client: 'inner', server: 'peer', ends: ENDS }));
  }
  await stage.goOn('at the end', now(), all);
  for (const transfer of all) await stage.finish(transfer);
}
