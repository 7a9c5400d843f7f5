/* `tiflow probe HOST[:PORT]`: can connections from here to there move, and if not, why.  Sends a
 * few SYNs of its own; leaves nothing behind here or there.
 */

import type { Command } from 'commander';
import { CONFIG_PATH, ConfigError, readConfig } from '../daemon/config/config.js';
import type { Psk } from '../daemon/config/psk.js';
import type { Probed } from '../probe/probe.js';
import type { Prober, Way } from '../probe/prober.js';
import type { Family } from '../wire/address.js';
import { formatChecks } from './doctor.js';
import { EXIT, VerbError } from './exit.js';
import { missingCapabilities } from './privileges.js';
import { describe, formatHops, type Here, unknownFromHere } from './probe/describe.js';
import { parseTarget, resolveTarget, type Target } from './probe/target.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';
import { painterFor } from './table.js';

interface ProbeVerbOptions extends RunDirOption {
  ipv4?: boolean;
  ipv6?: boolean;
  trace?: boolean;
  config?: string;
  json?: boolean;
}

export function addProbe(program: Command): void {
  addRunDirOption(program.command('probe'))
    .description('can connections to a host move: the path there, the path back, the host')
    .argument('<host[:port]>', 'port of a TCP service that runs there (default 22)', parseTarget)
    .option('-4, --ipv4', 'over IPv4')
    .option('-6, --ipv6', 'over IPv6')
    .option('--trace', 'where on the way the option is, hop by hop')
    .option('--config <file>', `where our pre-shared keys are (default ${CONFIG_PATH})`)
    .option('--json', 'print one JSON object')
    .action(async (target: Target, o: ProbeVerbOptions) => {
      requireRaw();
      const way = await wayTo(target, o);
      const { probe } = await import('../probe/probe.js');
      const psk = configuredPsk(o.config);
      const probed = await probe(way, { psk, trace: o.trace === true }, closeOnSignal);
      const here = await whatIsHere(way.interface, runDirOf(o));
      print({ target, way, probed, here }, o.json === true);
      if (probed.verdict.movable !== true) process.exitCode = EXIT.failure;
    });
}

function requireRaw(): void {
  const missing = missingCapabilities(['CAP_NET_RAW', 'CAP_NET_ADMIN']);
  if (missing.length === 0) return;
  const text = `probe: not permitted: needs ${missing.join(', ')} (run as root)`;
  throw new VerbError(text, EXIT.notPermitted);
}

type LocalWay = Way & { interface: string };

async function wayTo(target: Target, o: ProbeVerbOptions): Promise<LocalWay> {
  const version: Family | undefined = o.ipv4 ? 4 : o.ipv6 ? 6 : undefined;
  const destination = await resolveTarget(target.host, version);
  const { Netlink } = await import('../netlink/netlink.js');
  const { routeTo } = await import('../link/route.js');
  const netlink = new Netlink();
  try {
    const route = routeTo(netlink, destination);
    if (route === undefined)
      throw new VerbError(`probe ${target.host}: no route to ${destination}`);
    if (route.interface === 'lo') {
      throw new VerbError(`probe ${target.host}: ${destination} is this machine: there is no path`);
    }
    const { source, interface: name } = route;
    return { source, destination, destinationPort: target.port, interface: name };
  } finally {
    netlink.close();
  }
}

/* Needs no daemon, and no configuration: that the usual one is broken is what `doctor` says. */
function configuredPsk(path: string | undefined): Psk | undefined {
  if (path !== undefined) return readConfig(path, { mustExist: true }).psk;
  try {
    return readConfig(CONFIG_PATH, { mustExist: false }).psk;
  } catch (error) {
    if (error instanceof ConfigError) return undefined;
    throw error;
  }
}

async function whatIsHere(name: string, runDir: string): Promise<Here> {
  const { checkDaemon } = await import('./doctor/daemon.js');
  const { defaultConfig } = await import('../daemon/config/config.js');
  const { status } = await checkDaemon(runDir, defaultConfig().table);
  const attached = status?.interfaces.some((link) => link.name === name && link.attached) ?? false;
  return { interface: name, protected: attached };
}

/* Interrupted halfway, it must not leave a connection half open at the far end. */
function closeOnSignal(prober: Prober): void {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => {
      prober.close();
      process.exit(code);
    });
  }
}

export interface ProbeReport {
  target: Target;
  way: LocalWay;
  probed: Probed;
  here: Here;
}

function print(report: ProbeReport, json: boolean): void {
  const { target, way, probed, here } = report;
  const checks = describe(target, probed, here);
  const paint = painterFor(process.stdout);
  const to = `${target.host} (${way.destination}) port ${target.port}`;
  const heading = `${to}, from ${way.source} by ${way.interface}`;
  const lines = json
    ? [JSON.stringify(probeView(report, checks))]
    : [
        ...[heading, ...formatHops(probed.hops ?? []), ...formatChecks(checks, paint)],
        ...unknownFromHere(target.host).map((what) => `not known from here: ${what}`),
      ];
  process.stdout.write(lines.map((line) => `${line}\n`).join(''));
}

function probeView(
  { target, way, probed, here }: ProbeReport,
  checks: ReturnType<typeof describe>,
): object {
  const { verdict, answers, room, hops } = probed;
  return {
    version: 1,
    host: target.host,
    port: target.port,
    address: way.destination,
    source: way.source,
    interface: way.interface,
    interface_protected: here.protected,
    movable: verdict.movable,
    reason: verdict.reason,
    option_there: verdict.there,
    option_back: verdict.back,
    peer: verdict.peer,
    answers: {
      with_option: answers.open.kind,
      without_option: answers.plain.kind,
      synchronization: answers.sync?.kind ?? null,
    },
    option_space: { syn: room.syn, syn_ack: room.synAck ?? null },
    hops: hops ?? null,
    not_known_from_here: unknownFromHere(target.host),
    checks,
  };
}
