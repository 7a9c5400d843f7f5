/**
 * The cases `host-NAME`: tiflow beside other software on one machine. docs/HOSTS.md is their
 * table.
 */
import type { HostCase } from '../twins/stage.js';
import { ipv6Off, noIpv6, onLink, privacy } from './addressing.js';
import { late, recreated, recreatedElsewhere } from './attachment.js';
import { dhcpcd } from './dhcp-clients.js';
import { firewallOut } from './firewalls.js';
import { virtualAddressMoves } from './service-addresses.js';
import { vpn } from './vpn.js';

export const HOST_CASES: readonly HostCase[] = [
  dhcpcd,
  virtualAddressMoves,
  vpn,
  firewallOut,
  recreated,
  recreatedElsewhere,
  late,
  noIpv6,
  ipv6Off,
  onLink,
  privacy,
];
