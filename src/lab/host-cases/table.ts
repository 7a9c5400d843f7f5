/**
 * The cases `host-NAME`: tiflow beside other software on one machine. docs/HOSTS.md is their
 * table.
 */
import type { HostCase } from '../twins/stage.js';
import { ipv6Off, noIpv6, onLink, privacy } from './addressing.js';
import { clsactGone, late, recreated, recreatedElsewhere } from './attachment.js';
import { bgp } from './bgp.js';
import { dhclient, dhcpcd, dhcpDown, udhcpc } from './dhcp-clients.js';
import { firewallOut, tproxy } from './firewalls.js';
import { marks } from './marks.js';
import { networkd } from './networkd.js';
import {
  networkManager,
  networkManagerBridge,
  networkManagerDisconnected,
  networkManagerQuick,
} from './networkmanager.js';
import { addressOnLo, localRoute, virtualAddressMoves } from './service-addresses.js';
import { dock, undock } from './uplinks.js';
import { vpn } from './vpn.js';

export const HOST_CASES: readonly HostCase[] = [
  networkd,
  networkManager,
  networkManagerQuick,
  networkManagerBridge,
  networkManagerDisconnected,
  dhclient,
  dhcpcd,
  udhcpc,
  dhcpDown,
  virtualAddressMoves,
  addressOnLo,
  localRoute,
  bgp,
  vpn,
  marks,
  firewallOut,
  tproxy,
  clsactGone,
  recreated,
  recreatedElsewhere,
  late,
  noIpv6,
  ipv6Off,
  onLink,
  privacy,
  dock,
  undock,
];
