/* Who gets this interface a new address when it is plugged in elsewhere. */

import { type Check, ok, warn } from './check.js';

/** `renew`: the command of the configuration, which goes first. */
export async function checkRenewal(name: string, renew: string | undefined): Promise<Check[]> {
  const id = `${name}.renewal`;
  if (renew !== undefined) return [ok(id, `renewed by: ${renew}`)];
  const { findClient } = await import('../../link/dhcp.js');
  const client = await findClient(name);
  if (client !== undefined) return [ok(id, `addresses come from ${client.client}`)];
  return [
    warn(
      id,
      'no DHCP client found: nobody asks for an address when the network changes',
      'run one (udhcpc, dhclient, systemd-networkd, NetworkManager), or set "renew", ' +
        'or give addresses yourself',
    ),
  ];
}
