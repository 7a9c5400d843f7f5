/**
 * The gateway itself gets another address, or loses an uplink.  What becomes of a connection
 * through it depends on who it is on the network:
 *
 *   the host itself (its prefix is routed to the gateway)    moves to the gateway's new address
 *   the gateway, by `snat to ADDRESS`                        moves: conntrack keeps the connection
 *   the gateway, by `masquerade`                             moves: the kernel forgets it with the
 *                                                            address, and is told again
 *   the gateway, for a program of its own                    moves, as on any host
 */
import type { GatewayCase, GatewayTransfer } from '../gateway/stage.js';
import { writeSysctls } from '../namespace.js';

const ENDS = ['gw', 'peer'] as const;

export const gatewayRenumbered: GatewayCase = {
  name: 'gateway-renumbered',
  summary: 'the gateway gets another address: what is routed, translated or its own goes on',
  gateway: { daemons: ['gw', 'peer'] },
  async play(stage) {
    const [routed, translated, masqueraded] = [0, 0, 0].map(() => stage.freshPort());
    const { lab, family } = stage;
    // As OPERATIONS.md asks of gateways that masquerade: a segment that comes while its connection
    // is forgotten must not begin another one. Here its reset would be back within 30 µs.
    writeSysctls(lab.namespaces.gw, { 'netfilter/nf_conntrack_tcp_loose': '0' });
    // Of the host behind: what the gateway sends itself must keep the address that it has chosen.
    const its = `${family === 4 ? 'ip' : 'ip6'} saddr ${lab.address('inner', family)}`;
    const at = (port?: number) => `${its} oifname "up0" tcp dport ${port}`;
    lab.translate('gw', family, [
      `${at(translated)} snat to ${lab.address('gw', family)}`,
      `${at(masqueraded)} masquerade`,
    ]);
    const from = (client: 'inner' | 'gw', port?: number) =>
      stage.transfer({ client, server: 'peer', ends: ENDS, ...(port !== undefined && { port }) });
    const forwarded = [routed, translated, masqueraded];
    const moved: GatewayTransfer[] = [];
    for (const port of forwarded) moved.push(await from('inner', port));
    for (const transfer of moved) await stage.checkForwarded(transfer);
    moved.push(await from('gw'));
    for (let move = 1; move <= 2; move++) {
      const since = stage.renumber('gw');
      await stage.goOn(`renumbered ${move}`, since, moved);
      for (const each of moved) await stage.checkMoved(`renumbered ${move}`, each, move);
    }
    for (const transfer of moved) await stage.finish(transfer);
  },
};

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
