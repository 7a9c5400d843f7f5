/* `tiflow daemon`: the daemon in the foreground, as a service manager wants it. */

import { release } from 'node:os';
import type { Command } from 'commander';
import pino, { type Logger } from 'pino';
import { CONFIG_PATH, type Config, readConfig } from '../daemon/config/config.js';
import { interfacePattern } from '../daemon/config/interface-pattern.js';
import { SystemError } from '../libc/errno.js';
import { checkRelease } from './doctor/kernel.js';
import { EXIT, tell, UsageError, VerbError } from './exit.js';
import { requirePrivileges } from './privileges.js';
import { addRunDirOption, type RunDirOption, runDirOf } from './run-dir.js';

interface DaemonOptions extends RunDirOption {
  config?: string;
  interface: string[];
  gateway: string[];
}

export function addDaemon(program: Command): void {
  addRunDirOption(program.command('daemon'))
    .description('run the daemon in the foreground (tiflow up starts it in the background)')
    .option('--config <file>', `configuration (default ${CONFIG_PATH}, if it exists)`)
    .option('--interface <name>', 'attach this interface too; may be repeated', collect, [])
    .option('--gateway <name>', 'the same, for the hosts behind this machine, too', collect, [])
    .action(async (o: DaemonOptions) => {
      const config = effectiveConfig(o);
      requirePrivileges('daemon');
      const { runDaemon } = await import('../daemon/service.js');
      const exit = await runDaemon(() => effectiveConfig(o), openLog(config)).then(
        () => EXIT.ok,
        (error: unknown) => tell(withKernelAdvice(error, release())),
      );
      // Whatever is still open: a process without its socket would be taken for a daemon that runs.
      process.exit(exit);
    });
}

/** The configuration file with what the command line says over it. */
export function effectiveConfig(o: DaemonOptions): Config {
  const config = readConfig(o.config ?? CONFIG_PATH, { mustExist: o.config !== undefined });
  for (const option of ['interface', 'gateway'] as const) {
    const wrong = o[option].find((name) => !interfacePattern.safeParse(name).success);
    if (wrong !== undefined) throw new UsageError(`--${option}: "${wrong}" is no interface name`);
  }
  return {
    ...config,
    interfaces: [...new Set([...config.interfaces, ...o.interface])],
    gateways: [...new Set([...config.gateways, ...o.gateway])],
    runDir: runDirOf({ runDir: o.runDir ?? config.runDir }),
  };
}

/* Versions decide nothing, since distributions backport; but where the kernel has refused
 * something and is old, that is the likely reason, and the verifier's words would not say so.
 */
export function withKernelAdvice(error: unknown, kernel: string): unknown {
  const { level, message } = checkRelease(kernel);
  if (!(error instanceof SystemError) || level === 'ok') return error;
  const exit = error.code === 'EPERM' || error.code === 'EACCES' ? EXIT.notPermitted : EXIT.failure;
  return new VerbError(`${error.message}\n${message} (tiflow doctor tells what is missing)`, exit);
}

/* Synchronous: the last lines before a crash are the ones that matter. */
function openLog(config: Config): Logger {
  return pino(
    {
      level: config.log,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    pino.destination({ fd: 2, sync: true }),
  );
}

function collect(value: string, values: string[]): string[] {
  return [...values, value];
}
