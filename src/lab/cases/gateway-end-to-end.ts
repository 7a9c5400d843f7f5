/**
 * A host behind the gateway that runs tiflow itself is left to do it, end to end; its neighbour
 * that does not is protected by the gateway.  The host moves within its subnet, the peer away.
 */
import type { GatewayCase, GatewayStage } from '../gateway/stage.js';
import { now } from '../wait.js';

export const gatewayEndToEnd: GatewayCase = {
  name: 'gateway-end-to-end',
  summary: 'a host behind a gateway has tiflow itself: it and its peer move, the gateway stands by',
  gateway: { daemons: ['inner', 'gw', 'peer'] },
  async play(stage) {
    const ends = ['inner', 'peer'] as const;
    const out = await stage.transfer({ client: 'inner', server: 'peer', ends });
    const into = await stage.transfer({ client: 'peer', server: 'inner', ends });
    const both = [out, into];
    for (const [i, host] of (['peer', 'inner', 'peer', 'inner'] as const).entries()) {
      const at = stage.renumber(host);
      await stage.goOn(`${host} moved`, at, both);
      for (const each of both) await stage.checkMoved(`${host} moved`, each, i + 1);
    }
    await checkUntouched(stage);
    await stage.goOn('at the end', now(), both);
    for (const each of both) await stage.finish(each);
  },
};

/** The gateway has seen the set-ups and the synchronizations, and has taken none for its own. */
async function checkUntouched(stage: GatewayStage): Promise<void> {
  const { flows, counters, moves } = await stage.lab.daemon('gw').status();
  stage.check('the gateway has no flow', flows.protected === 0, `${flows.protected} flows`);
  stage.check('and has moved none', moves.completed + moves.failed === 0);
  const named = ['legacy.inner', 'count.end-to-end'].map((name) => counters[name] ?? 0);
  stage.check(
    'it has let them pass',
    named.every((n) => n > 0),
    JSON.stringify(counters),
  );
}
