/**
 * The gateway itself gets another address, or loses an uplink.  What becomes of a connection
 * through it depends on who it is on the network:
 *
 *   the host itself (its prefix is routed to the gateway)    moves to the gateway's new address
 *   the gateway, by `snat to ADDRESS`                        moves: conntrack keeps the connection
 *   the gateway, by `masquerade`                             cannot: the kernel forgets all those
 *                                                            connections when the address goes
 *   the gateway, for a program of its own                    moves, as on any host
 */
import type { GatewayCase, GatewayStage, GatewayTransfer } from '../gateway/stage.js';
import { now, until } from '../wait.js';

const ENDS = ['gw', 'peer'] as const;
/** Within this time a program knows that its connection is over: twice the quarantine of a reset. */
const TOLD_MS = 10_000;

export const gatewayRenumbered: GatewayCase = {
  name: 'gateway-renumbered',
  summary: 'the gateway gets another address: what is routed, translated or its own goes on',
  gateway: { daemons: ['gw', 'peer'] },
  async play(stage) {
    const [routed, translated, masqueraded] = [0, 0, 0].map(() => stage.freshPort());
    const { lab, family } = stage;
    // Of the host behind: what the gateway sends itself must keep the address that it has chosen.
    const its = `${family === 4 ? 'ip' : 'ip6'} saddr ${lab.address('inner', family)}`;
    const at = (port?: number) => `${its} oifname "up0" tcp dport ${port}`;
    lab.translate('gw', family, [
      `${at(translated)} snat to ${lab.address('gw', family)}`,
      `${at(masqueraded)} masquerade`,
    ]);
    const from = (client: 'inner' | 'gw', port?: number) =>
      stage.transfer({ client, server: 'peer', ends: ENDS, ...(port !== undefined && { port }) });
    const doomed = await from('inner', masqueraded);
    const moved = [await from('inner', routed), await from('inner', translated), await from('gw')];
    for (const transfer of moved.slice(0, 2)) await stage.checkForwarded(transfer);
    for (let move = 1; move <= 2; move++) {
      const since = stage.renumber('gw');
      if (move === 1) await told(stage, doomed, since);
      await stage.goOn(`renumbered ${move}`, since, moved);
      for (const each of moved) await stage.checkMoved(`renumbered ${move}`, each, move);
    }
    for (const transfer of moved) await stage.finish(transfer);
  },
};

/** Both programs see an error, and none sees a wrong byte. */
async function told(stage: GatewayStage, doomed: GatewayTransfer, since: number): Promise<void> {
  const ends = doomed.streams.both;
  const over = async () => {
    const reports = await Promise.all(ends.map((end) => end.report()));
    return reports.every(({ errors }) => errors.length > 0) && reports;
  };
  const reports = await until('the programs to be told', over, TOLD_MS).catch(() => undefined);
  const took = Math.round(now() - since);
  stage.check('masqueraded: both programs are told in time', reports !== undefined, `${took} ms`);
  const wrong = (reports ?? []).some((report) => report.wrong > 0);
  stage.check('masqueraded: no wrong byte', !wrong);
  for (const end of ends) end.stop();
}

export const gatewayTwoUplinks: GatewayCase = {
  name: 'gateway-two-uplinks',
  summary: 'a gateway loses one of two uplinks, and its connections go on by the other',
  gateway: { daemons: ['gw', 'peer'], uplinks: 2 },
  async play(stage) {
    const { lab, family } = stage;
    const routed = await stage.transfer({ client: 'inner', server: 'peer', ends: ENDS });
    const port = stage.freshPort();
    const its = `${family === 4 ? 'ip' : 'ip6'} saddr ${lab.address('inner', family)}`;
    const snat = `snat to ${lab.address('gw', family)}`;
    lab.translate('gw', family, [`${its} tcp dport ${port} ${snat}`]);
    const called = { client: 'inner', server: 'peer', ends: ENDS, port } as const;
    const translated = await stage.transfer(called);
    const at = lab.unplug('up0');
    stage.moves.push(at);
    stage.step('up0 is dead');
    for (const each of [routed, translated]) {
      await stage.goOn('by the other uplink', at, [each]);
      await stage.checkMoved('by the other uplink', each, 1);
    }
    for (const each of [routed, translated]) await stage.finish(each);
  },
};
