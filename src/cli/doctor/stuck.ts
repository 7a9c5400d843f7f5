/* Why the kernel does not take what comes in for a flow, as far as it can be seen: what drops it, and
 * whether what tiflow has put there for an address that is gone is there still.
 */

import { networkInterfaces } from 'node:os';
import { DaemonClient } from '../../daemon/api/client.js';
import type { Config } from '../../daemon/config/config.js';
import type { FlowView, StatusView } from '../../daemon/view/view.js';
import { type Address, address } from '../../wire/address.js';
import { type Check, fail, ok, warn } from './check.js';

/** What of a retained address is not there; undefined: it is not gone, or is none of this kernel's. */
export type Lacking = (a: Address) => readonly string[] | undefined;

/** `status`: of the daemon that runs, if one does. */
export async function checkStuck(
  runDir: string,
  status: StatusView | undefined,
  { table }: Pick<Config, 'table'>,
): Promise<Check[]> {
  if (status === undefined) return [];
  const lacking = await lackingOf(status, table);
  const kept = describeKept(status.retained, lacking);
  if (status.flows.stuck === 0) return [...kept, ok('flows.stuck', 'none')];
  const { flows } = await new DaemonClient(runDir).flows();
  return [...kept, ...describeStuck(flows, (a) => (isConfigured(a) ? undefined : lacking))];
}

/* What of the retained addresses is not there now: others remove rules that are not their own. */
async function lackingOf({ retained, interfaces }: StatusView, table: number): Promise<string[]> {
  const { Netlink } = await import('../../netlink/netlink.js');
  const { RetainedAddresses } = await import('../../link/retained-kernel.js');
  const netlink = new Netlink();
  try {
    const attached = interfaces.filter((each) => each.attached);
    const addresses = new RetainedAddresses(netlink, {
      table,
      interfaces: () => attached.map(({ name }) => name),
      forwards: () => attached.some(({ gateway }) => gateway),
    });
    return addresses.lacking(retained.map((a) => address(a)));
  } finally {
    netlink.close();
  }
}

/** The addresses that are kept for flows, and what is missing of them. */
export function describeKept(retained: readonly string[], lacking: readonly string[]): Check[] {
  if (retained.length === 0) return [];
  const which = retained.join(', ');
  if (lacking.length === 0) return [ok('retained', `${which}: all of it is there`)];
  return [fail('retained', `${which}: missing: ${lacking.join('; ')}`, PUT_BACK)];
}

/** One check for all flows of an address that are stuck for the same reason. */
export function describeStuck(flows: readonly FlowView[], lacking: Lacking): Check[] {
  const alike = new Map<string, [FlowView, ...FlowView[]]>();
  for (const flow of flows) {
    if (flow.state !== 'stuck') continue;
    const key = `${flow.tap} ${localOf(flow)} ${flow.reason}`;
    const known = alike.get(key);
    if (known) known.push(flow);
    else alike.set(key, [flow]);
  }
  return [...alike.values()].map(([first, ...more]) => describe(first, more.length + 1, lacking));
}

function describe(flow: FlowView, count: number, lacking: Lacking): Check {
  const which = count === 1 ? flow.kernel : `${count} flows such as ${flow.kernel}`;
  const id = 'flows.stuck';
  // The address of a guest, or of a host behind this gateway, is not kept here.
  const own = flow.tap === null && !flow.forwarded;
  const lost = own ? lacking(localOf(flow)) : undefined;
  if (lost !== undefined && lost.length > 0) {
    return fail(id, `${which}: missing: ${lost.join('; ')}`, PUT_BACK);
  }
  if (flow.reason !== null) {
    const advice = 'one boundary too many on the path? tiflow detaches with: tiflow down IF';
    return warn(id, `${which}: dropped, and counted as ${flow.reason}`, advice);
  }
  const there = lost === undefined ? '' : ', and its rules and routes are there';
  const what = `${which}: dropped behind the boundary, by no counter of tiflow${there}`;
  return warn(id, what, 'a firewall that drops it? nft list ruleset');
}

const PUT_BACK = `the daemon puts it back, ever later the oftener it is removed; see who does \
(systemd-networkd: ManageForeignRoutingPolicyRules=no, ManageForeignRoutes=no)`;

/** "192.0.2.10:22 > …", "[2001:db8::1]:22 > …". */
function localOf({ kernel }: FlowView): Address {
  const [local = ''] = kernel.split(' > ');
  return address(local.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''));
}

const isConfigured = (a: Address): boolean =>
  Object.values(networkInterfaces()).some((entries) =>
    entries?.some((entry) => !entry.internal && address(entry.address) === a),
  );
