/*
 * Who gets the addresses of an interface, in this network namespace, and under which name its DHCP
 * servers know it.  What each does when the network changes (measured, see decision 20):
 *
 *   manager   NetworkManager, systemd-networkd, dhcpcd, connman: sees the carrier, and asks by itself
 *   client    udhcpc, dhclient: sees no carrier, and keeps its lease until half of it is over
 *
 * Found by what they say of the interface now, else by their command line.  One that cannot be asked
 * counts as one that manages it: nobody tells it anything then.
 */
import { readFile } from 'node:fs/promises';
import { run } from '../libc/command.js';
import { SystemError } from '../libc/errno.js';
import { interfaceIndex } from '../libc/socket.js';
import { type ProgramRecord, programsHere } from './processes.js';
import type { LeaseIdentity } from './verification.js';

export type ManagerName = 'NetworkManager' | 'systemd-networkd' | 'dhcpcd' | 'connmand';
export type ClientName = 'udhcpc' | 'dhclient';

export type MayBeTold = 'yes' | 'not now' | 'never';

export type LeaseOwner =
  | {
      kind: 'manager';
      name: ManagerName;
      /** undefined: it has no lease of DHCP there, or does not say so. */
      identity: LeaseIdentity | undefined;
      /** To get addresses anew; never, if it cannot, or was told to leave the interface alone. */
      mayBeTold: MayBeTold;
    }
  | { kind: 'client'; name: ClientName; identity: LeaseIdentity; program: ProgramRecord };

type Find = (program: ProgramRecord, name: string) => Promise<LeaseOwner | undefined>;

/* Whoever manages an interface comes before a client that it may have started; connmand, which is not
 * asked, comes last.
 */
const OWNERS: Record<ManagerName | ClientName, Find> = {
  NetworkManager: async (_, name) => networkManager(name),
  'systemd-networkd': async (_, name) => networkd(name),
  dhcpcd: dhcpcd,
  udhcpc: async (program, name) => {
    if (udhcpcInterface(program.argv) !== name) return undefined;
    return { kind: 'client', name: 'udhcpc', identity: udhcpcIdentity(program.argv), program };
  },
  dhclient: async (program, name) => {
    const served = dhclientInterfaces(program.argv);
    const serves = served.length === 0 || served.includes(name);
    if (!serves || program.argv.includes('-6')) return undefined;
    return { kind: 'client', name: 'dhclient', identity: NOT_CERTAIN, program };
  },
  connmand: async () => manager('connmand', { mayBeTold: 'never' }),
};

/** Its configuration may say anything; servers then go by the hardware address. */
export const NOT_CERTAIN: LeaseIdentity = { clientId: undefined, certain: false };

const manager = (
  name: ManagerName,
  o: { mayBeTold: MayBeTold; identity?: LeaseIdentity | undefined },
): LeaseOwner => ({ kind: 'manager', name, identity: o.identity, mayBeTold: o.mayBeTold });

/** Who gets addresses for an interface; undefined: nobody.  Throws SystemError. */
export async function findLeaseOwner(interfaceName: string): Promise<LeaseOwner | undefined> {
  const programs = await programsHere(Object.keys(OWNERS));
  for (const [owner, find] of Object.entries(OWNERS)) {
    for (const program of programs.filter(({ name }) => name === owner)) {
      const found = await find(program, interfaceName);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/* enum NMDeviceState: unknown 0, unmanaged 10; activated 100.  30 is disconnected, perhaps by its user. */
const [NM_UNMANAGED, NM_DISCONNECTED, NM_ACTIVATED] = [10, 30, 100];

/* What connecting anew would take apart: they have ports. */
const NM_WITH_PORTS = ['bridge', 'bond', 'team', 'ovs-bridge', 'ovs-port', 'vrf'];

async function networkManager(name: string): Promise<LeaseOwner | undefined> {
  const fields = 'GENERAL.STATE,GENERAL.TYPE,DHCP4.OPTION';
  let said: string;
  try {
    const attempted = `ask NetworkManager about ${name}`;
    said = await run(attempted, ['nmcli', '-t', '-e', 'no', '-f', fields, 'device', 'show', name]);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    return manager('NetworkManager', { mayBeTold: 'never' });
  }
  return networkManagerSays(said);
}

/** Of `nmcli -t -e no -f GENERAL.STATE,GENERAL.TYPE,DHCP4.OPTION device show IF`. */
export function networkManagerSays(said: string): LeaseOwner | undefined {
  const state = Number(/^GENERAL\.STATE:(\d+)/m.exec(said)?.[1] ?? 0);
  if (state <= NM_UNMANAGED) return undefined;
  const type = /^GENERAL\.TYPE:(.*)$/m.exec(said)?.[1] ?? '';
  const leased = /^DHCP4\.OPTION/m.test(said);
  const id = /^DHCP4\.OPTION\[\d+\]:dhcp_client_identifier = ([0-9a-f:]+)$/m.exec(said)?.[1];
  return manager('NetworkManager', {
    mayBeTold: mayBeTold(state, type, leased),
    identity: leased ? identityOf(id?.replaceAll(':', '')) : undefined,
  });
}

function mayBeTold(state: number, type: string, leased: boolean): MayBeTold {
  if (state <= NM_DISCONNECTED || NM_WITH_PORTS.includes(type)) return 'never';
  if (state !== NM_ACTIVATED) return 'not now';
  return leased ? 'yes' : 'never';
}

async function networkd(name: string): Promise<LeaseOwner | undefined> {
  const index = interfaceIndex(name);
  const read = (file: string) =>
    readFile(`/run/systemd/netif/${file}/${index}`, 'utf8').catch(() => '');
  return networkdSays(await read('links'), await read('leases'));
}

/** Of its files about the link and the lease; '' where there is none. */
export function networkdSays(link: string, lease: string): LeaseOwner | undefined {
  if (!/^ADMIN_STATE=(?!unmanaged)/m.test(link)) return undefined;
  const id = /^CLIENTID=([0-9a-f]+)$/m.exec(lease)?.[1];
  const identity = lease === '' ? undefined : identityOf(id);
  return manager('systemd-networkd', {
    mayBeTold: identity === undefined ? 'never' : 'yes',
    identity,
  });
}

/* Since version 10 its title is "dhcpcd: eth0 [ip4]", or "dhcpcd: [manager] [ip4]", and before that
 * "[master]": then it says itself which interfaces those are.
 */
async function dhcpcd({ title }: ProgramRecord, name: string): Promise<LeaseOwner | undefined> {
  const [, first = ''] = /^dhcpcd: (\S+)/.exec(title) ?? [];
  const owner = manager('dhcpcd', { mayBeTold: 'yes', identity: NOT_CERTAIN });
  if (first === name) return owner;
  if (!/^\[(manager|master)\]$/.test(first)) return undefined;
  const lease = await run(`ask dhcpcd about ${name}`, ['dhcpcd', '-4', '-U', name]).catch(() => '');
  return lease === '' ? undefined : owner;
}

const identityOf = (hex: string | undefined): LeaseIdentity => ({
  clientId: hex === undefined ? undefined : Uint8Array.from(Buffer.from(hex, 'hex')),
  certain: true,
});

/* With -C it sends none; with -x 61:… or -x 0x3d:… another than by default. */
export function udhcpcIdentity(argv: readonly string[]): LeaseIdentity {
  if (argv.some((word) => /^(-x)?(61|0x3d):/i.test(word))) return NOT_CERTAIN;
  if (argv.some((word) => /^-[fqnbSRoaBv]*C/.test(word))) return identityOf(undefined);
  return { clientId: 'hardware', certain: true };
}

/** The interface of a udhcpc command line: -i IF, -iIF, -fi IF, --interface IF; else eth0. */
export function udhcpcInterface(argv: readonly string[]): string {
  for (const [at, word] of argv.entries()) {
    const long = /^--interface(?:=(.*))?$/.exec(word);
    if (long) return long[1] ?? argv[at + 1] ?? '';
    // In a cluster such as -fqi only flags without a value may stand before the i.
    const short = /^-[fqnbSRoaBCv]*i(.*)$/.exec(word);
    if (short) return short[1] || (argv[at + 1] ?? '');
  }
  return 'eth0';
}

/* Those of dhclient(8) that take a value. */
const DHCLIENT_VALUES = [
  ...['-p', '-s', '-g', '-e', '-cf', '-lf', '-pf', '-sf', '-df', '-D', '-I', '-C', '-H', '-F'],
  ...['-U', '-V', '--request-options', '--timeout', '--decline-wait-time', '--prefix-len-hint'],
];

/** The interfaces of a dhclient command line; none: it serves all of them. */
export function dhclientInterfaces(argv: readonly string[]): string[] {
  return argv.filter((word, at) => {
    const before = argv[at - 1] ?? '';
    return !word.startsWith('-') && !DHCLIENT_VALUES.includes(before);
  });
}
