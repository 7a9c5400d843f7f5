/*
 * Makes the DHCP client that the system runs ask for an address on the link that is there now.
 *
 * A plain renewal is not enough: the client asks its *old* server by unicast, and goes on asking
 * around for the address of the old link before it gives up (RFC 2131, section 4.4.5): udhcpc
 * took 4 s with timeouts of 1 s.  So the lease is given back and discovery starts from scratch:
 * 0.1 s.  On a link that has not changed the server gives the same address again.
 *
 * Not a DHCP client itself, and not for IPv6: see autoconf.ts.
 */
import { readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { run, start } from '../libc/command.js';
import { ERRNO, SystemError } from '../libc/errno.js';
import { interfaceIndex } from '../libc/socket.js';
import { type ProgramRecord, programsHere } from './processes.js';

/* Whoever manages an interface comes before a client that it may have started. */
const CLIENTS = ['NetworkManager', 'systemd-networkd', 'udhcpc', 'dhclient'] as const;

const STOP_TIMEOUT_MS = 2000;
const SIGNAL_TIMEOUT_MS = 2000;
const POLL_MS = 2;
const SIGUSR2_PENDING = 1n << 11n;

/** A program that gets addresses for an interface. */
export interface Client {
  client: (typeof CLIENTS)[number];
  program: ProgramRecord;
}

/**
 * Makes whatever serves an interface in this network namespace get its addresses anew, and says
 * who that is; undefined if nobody does.  `renew`: a shell command to run instead, with the
 * interface as $1.  Done when the client has been told, not when an address is there: that one
 * is seen by the monitor.  Throws SystemError.
 */
export async function renewAddresses(
  interfaceName: string,
  o: { renew?: string | undefined } = {},
): Promise<{ client: string } | undefined> {
  const attempted = `renew the addresses of ${interfaceName}`;
  if (o.renew !== undefined) {
    await run(attempted, ['sh', '-c', o.renew, 'renew', interfaceName]);
    return { client: 'renew' };
  }
  const found = await findClient(interfaceName);
  if (found === undefined) return undefined;
  await RENEW[found.client](found.program, interfaceName, attempted);
  return { client: found.client };
}

/** Who gets addresses for an interface in this network namespace.  Throws SystemError. */
export async function findClient(interfaceName: string): Promise<Client | undefined> {
  const programs = await programsHere(CLIENTS);
  for (const client of CLIENTS) {
    for (const program of programs.filter(({ name }) => name === client)) {
      if (await SERVES[client](program, interfaceName)) return { client, program };
    }
  }
  return undefined;
}

const SERVES: Record<Client['client'], (p: ProgramRecord, name: string) => Promise<boolean>> = {
  NetworkManager: async (_, name) => networkManagerServes(name),
  'systemd-networkd': async (_, name) => networkdServes(name),
  udhcpc: async ({ argv }, name) => udhcpcInterface(argv) === name,
  dhclient: async ({ argv }, name) => {
    const served = dhclientInterfaces(argv);
    return served.length === 0 || served.includes(name);
  },
};

type Renew = (program: ProgramRecord, name: string, attempted: string) => Promise<unknown>;

const RENEW: Record<Client['client'], Renew> = {
  NetworkManager: (_, name, attempted) =>
    run(attempted, ['nmcli', '--wait', '0', 'device', 'connect', name]),
  // Not `networkctl renew`: that one asks the old server.
  'systemd-networkd': (_, name, attempted) => run(attempted, ['networkctl', 'reconfigure', name]),
  udhcpc: ({ pid }, _, attempted) => renewUdhcpc(pid, attempted),
  dhclient: (program, _, attempted) => renewDhclient(program, attempted),
};

async function networkManagerServes(name: string): Promise<boolean> {
  const attempted = `ask NetworkManager about ${name}`;
  const state = await run(attempted, ['nmcli', '-g', 'GENERAL.STATE', 'device', 'show', name]);
  // '100 (connected)'; 10 is unmanaged, 0 unknown.
  return Number.parseInt(state, 10) > 10;
}

async function networkdServes(name: string): Promise<boolean> {
  const index = interfaceIndex(name);
  const state = await readFile(`/run/systemd/netif/links/${index}`, 'utf8').catch(() => '');
  return /^ADMIN_STATE=(?!unmanaged)/m.test(state);
}

/* SIGUSR2 releases, SIGUSR1 starts discovery.  Two signals that are pending together arrive in
 * no certain order, and the wrong one would leave the client asleep: so one at a time.
 */
async function renewUdhcpc(pid: number, attempted: string): Promise<void> {
  signal(pid, 'SIGUSR2', attempted);
  const deadline = Date.now() + SIGNAL_TIMEOUT_MS;
  while (await isSigusr2Pending(pid)) {
    if (Date.now() > deadline) {
      const hint = `udhcpc (pid ${pid}) does not react: is it stopped?`;
      throw new SystemError(attempted, ERRNO.ETIMEDOUT ?? 110, { hint });
    }
    await sleep(POLL_MS);
  }
  signal(pid, 'SIGUSR1', attempted);
}

async function isSigusr2Pending(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const masks = status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm);
  return [...masks].some(([, mask]) => (BigInt(`0x${mask}`) & SIGUSR2_PENDING) !== 0n);
}

/* dhclient takes no signals: stop it, give its lease back, start it again as it was.  `--no-pid`,
 * since `-r` ends whatever its process file names, which may be another namespace's dhclient.
 */
async function renewDhclient(program: ProgramRecord, attempted: string): Promise<void> {
  const { pid, argv } = program;
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => 'dhclient');
  await stop(pid, attempted);
  const quiet = argv.filter((word) => !['-d', '-w', '-nw', '-1'].includes(word));
  await run(attempted, [executable, '-r', '--no-pid', ...quiet]);
  start(attempted, [executable, ...argv]);
}

async function stop(pid: number, attempted: string): Promise<void> {
  signal(pid, 'SIGTERM', attempted);
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  while (isAlive(pid)) {
    if (Date.now() > deadline) signal(pid, 'SIGKILL', attempted);
    await sleep(POLL_MS);
  }
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

function signal(pid: number, name: NodeJS.Signals, attempted: string): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    const { code, errno = 0 } = error as NodeJS.ErrnoException;
    if (code === 'ESRCH' && (name === 'SIGTERM' || name === 'SIGKILL')) return;
    throw new SystemError(`${attempted}: send ${name} to process ${pid}`, Math.abs(errno));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
