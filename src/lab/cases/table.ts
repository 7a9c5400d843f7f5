/**
 * All cases of the lab, in the order in which they are best read and run.
 */
import type { GatewayCase } from '../gateway/stage.js';
import { HOST_CASES } from '../host-cases/table.js';
import { LabError } from '../namespace.js';
import { mariadb } from '../real-programs/mariadb.js';
import { nginx } from '../real-programs/nginx.js';
import { postgresql } from '../real-programs/postgresql.js';
import { redis } from '../real-programs/redis.js';
import { rsync } from '../real-programs/rsync.js';
import { ssh } from '../real-programs/ssh.js';
import type { Case } from '../stage.js';
import type { HostCase } from '../twins/stage.js';
import type { VmCase } from '../vm/stage.js';
import { churn, churnFew, churnPlain } from './churn.js';
import { congested } from './congested.js';
import { daemonKilled } from './daemon-killed.js';
import { forged } from './forged.js';
import { freeze } from './freeze.js';
import { gatewayBoth, gatewayClient, gatewayNat, gatewayServer } from './gateway.js';
import { gatewayEndToEnd, routerEndToEnd } from './gateway-end-to-end.js';
import { gatewayRenumbered, gatewayTwoUplinks } from './gateway-renumbered.js';
import { halfClosedTail, holdKeepalive, holdOver, holdRetries, outage } from './hold.js';
import { legacyClient, legacyServer } from './legacy.js';
import { blackout, clientMoves, halfClosed, idle, many, moveBack, tenMoves } from './moves.js';
import { paper } from './paper.js';
import { natReboot, natRenumbered, roamNat, roamSleep } from './roam.js';
import { sameSubnet } from './same-subnet.js';
import { stranger } from './stranger.js';
import { strictFirewall } from './strict-firewall.js';
import { vmBack, vmLiveGuest, vmLiveHypervisor, vmPauseCopy } from './vm.js';
import { vmBoth } from './vm-both.js';
import { vmDisk } from './vm-disk.js';
import { vmFail } from './vm-fail.js';
import { vmLegacy } from './vm-legacy.js';

/** Of any topology. */
export type AnyCase = Case | GatewayCase | HostCase | VmCase;

/**
 * All cases by what they are about.  A group is what one test file plays, its cases one after the
 * other, beside another file: test/cases/GROUP.test.ts.
 */
export const CASE_GROUPS = {
  moves: [
    paper,
    clientMoves,
    moveBack,
    tenMoves,
    idle,
    blackout,
    halfClosed,
    legacyClient,
    legacyServer,
    forged,
    stranger,
    sameSubnet,
    daemonKilled,
  ],
  roaming: [roamNat, roamSleep, natReboot, natRenumbered, congested],
  absences: [
    outage,
    halfClosedTail,
    holdRetries,
    holdKeepalive,
    holdOver,
    strictFirewall,
    freeze,
    many,
  ],
  churn: [churn, churnFew, churnPlain],
  programs: [ssh, postgresql, nginx, redis, rsync, mariadb],
  gateways: [
    gatewayClient,
    gatewayServer,
    gatewayNat,
    gatewayBoth,
    gatewayEndToEnd,
    gatewayRenumbered,
    gatewayTwoUplinks,
    routerEndToEnd,
  ],
  migrations: [vmLiveHypervisor, vmLiveGuest, vmPauseCopy, vmDisk, vmBack, vmBoth, vmLegacy],
  failures: vmFail,
  hosts: HOST_CASES,
} satisfies Record<string, readonly AnyCase[]>;

export type CaseGroup = keyof typeof CASE_GROUPS;

export const CASES: readonly AnyCase[] = Object.values(CASE_GROUPS).flat();

/** Throws LabError naming the cases there are. */
export function findCase(name: string): AnyCase {
  const found = CASES.find((c) => c.name === name);
  if (found) return found;
  throw new LabError(`no case ${name} (there are ${CASES.map((c) => c.name).join(', ')})`);
}
