/* Who gets this interface a new address when it is plugged in elsewhere. */

import type { LeaseOwner } from '../../link/lease-owner.js';
import { type Check, ok, warn } from './check.js';

/** `renew`: the command of the configuration, which goes first. */
export async function checkRenewal(name: string, renew: string | undefined): Promise<Check[]> {
  const id = `${name}.renewal`;
  if (renew !== undefined) return [ok(id, `renewed by: ${renew}`)];
  const { findLeaseOwner } = await import('../../link/lease-owner.js');
  const owner = await findLeaseOwner(name);
  if (owner !== undefined) return [ok(id, sayOwner(owner))];
  return [
    warn(
      id,
      'no DHCP client found: nobody asks for an address when the network changes',
      'run one (systemd-networkd, NetworkManager, dhcpcd, udhcpc, dhclient), or set "renew", ' +
        'or give addresses yourself',
    ),
  ];
}

function sayOwner({ kind, name }: LeaseOwner): string {
  const how =
    kind === 'manager'
      ? 'sees by itself when the network changes, and is left alone'
      : 'is told when the network is another one';
  return `addresses come from ${name}, which ${how}`;
}
