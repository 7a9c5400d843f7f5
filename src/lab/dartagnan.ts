/**
 * A client inside the athos subnet: for it, the VM at athos is on its own link, and moves away
 * from there.
 *
 *     aramis ──── router ──┬── athos ─┬─ vm
 *                          │          └─ dartagnan   192.0.2.20  2001:db8:1::20
 *                          └── porthos
 */
import { ipBatch, writeSysctls } from './namespace.js';
import { type Family, type HostName, NETWORKS } from './topology.js';

export const DARTAGNAN: Record<Family, string> = { 4: '192.0.2.20', 6: '2001:db8:1::20' };

/** Plugs dartagnan in at athos, with static addresses and the site's gateway. */
export function plugDartagnan(names: Record<HostName, string>): void {
  const { gateway4, gateway6 } = NETWORKS.athos;
  ipBatch(names.dartagnan, [
    `link add eth0 type veth peer name dartagnan0 netns ${names.athos}`,
    `addr add ${DARTAGNAN[4]}/24 dev eth0`,
    `addr add ${DARTAGNAN[6]}/64 dev eth0 nodad`,
  ]);
  writeSysctls(names.dartagnan, { 'ipv6/conf/eth0/accept_ra': '0' });
  ipBatch(names.athos, ['link set dartagnan0 master br0', 'link set dartagnan0 up']);
  ipBatch(names.dartagnan, [
    'link set eth0 up',
    `route add default via ${gateway4}`,
    `route add default via ${gateway6} dev eth0`,
  ]);
}
