/* `tiflow doctor`: will it work here, and if not, what is to be done.  Changes nothing. */

import type { Command } from 'commander';
import { CONFIG_PATH, type Config, defaultConfig, RUN_DIR } from '../daemon/config/config.js';
import { isPattern } from '../daemon/config/interface-pattern.js';
import { tiflowVersion } from '../daemon/view/version.js';
import type { StatusView } from '../daemon/view/view.js';
import type { Check } from './doctor/check.js';
import { checkConfig, checkDaemon } from './doctor/daemon.js';
import { checkKernel } from './doctor/kernel.js';
import {
  checkDefaultRoutes,
  checkInterface,
  checkSourcePorts,
  defaultInterfaces,
  readLocalPorts,
  readRoutes,
} from './doctor/network.js';
import { checkRenewal } from './doctor/renewal.js';
import { checkStuck } from './doctor/stuck.js';
import { EXIT } from './exit.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';
import { alignColumns, type Paint, painterFor } from './table.js';

interface DoctorOptions extends RunDirOption {
  config?: string;
  json?: boolean;
}

export function addDoctor(program: Command): void {
  addRunDirOption(program.command('doctor'))
    .description('check kernel, privileges, interfaces, daemon and configuration')
    .argument('[interface...]', 'default: those attached, configured, or with a default route')
    .option('--config <file>', `configuration (default ${CONFIG_PATH})`)
    .option('--json', 'print one JSON object')
    .action(async (names: string[], o: DoctorOptions) => {
      const checks = await examine(names, o);
      const healthy = checks.every((check) => check.level !== 'fail');
      const view = { version: 1, tiflow: tiflowVersion(), ok: healthy, checks };
      const lines = o.json
        ? [JSON.stringify(view)]
        : formatChecks(checks, painterFor(process.stdout));
      process.stdout.write(lines.map((line) => `${line}\n`).join(''));
      if (!healthy) process.exitCode = EXIT.failure;
    });
}

async function examine(names: string[], o: DoctorOptions): Promise<Check[]> {
  const { checks: configChecks, config } = checkConfig(o.config ?? CONFIG_PATH);
  const runDir = runDirOf({ runDir: o.runDir ?? config?.runDir ?? RUN_DIR });
  const daemon = await checkDaemon(runDir, (config ?? defaultConfig()).table);
  const routes = readRoutes();
  const interfaces =
    names.length > 0 ? names : interfacesOf(daemon.status, namesOf(config), routes);
  const checks = [...(await checkKernel()), ...configChecks, ...daemon.checks];
  checks.push(...(await checkStuck(runDir, daemon.status, config ?? defaultConfig())));
  checks.push(checkSourcePorts((config ?? defaultConfig()).sourcePorts, readLocalPorts()));
  checks.push(...checkDefaultRoutes(...routes));
  for (const name of interfaces) {
    checks.push(
      ...(await checkInterface(name, interfaces)),
      ...(await checkRenewal(name, config?.renew)),
    );
  }
  return checks;
}

const namesOf = (config: Config | undefined): string[] =>
  [...(config?.interfaces ?? []), ...(config?.gateways ?? [])].filter((name) => !isPattern(name));

function interfacesOf(
  status: StatusView | undefined,
  configured: readonly string[],
  routes: [string, string],
): string[] {
  const attached = (status?.interfaces ?? []).filter((link) => link.attached);
  const named = [...new Set([...attached.map((link) => link.name), ...configured])];
  if (named.length > 0) return named;
  const { ipv4, ipv6 } = defaultInterfaces(...routes);
  return [...new Set([...ipv4, ...ipv6])];
}

/** One line per check, and one more under it where there is something to do. */
export function formatChecks(checks: readonly Check[], paint: Paint): string[] {
  const colour = { ok: 'green', warn: 'yellow', fail: 'red' } as const;
  const lines = alignColumns(
    checks.map((check) => [check.level.padEnd(4), check.id, check.message]),
  );
  return checks.flatMap((check, row) => {
    const line = lines[row] ?? '';
    const painted = paint(colour[check.level], check.level) + line.slice(check.level.length);
    return check.advice === null ? [painted] : [painted, `      -> ${check.advice}`];
  });
}
