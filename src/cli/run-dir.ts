/* Which directories a verb uses: --run-dir and --state-dir, else what the configuration says. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import {
  CONFIG_PATH,
  type Config,
  ConfigError,
  defaultConfig,
  RUN_DIR,
  readConfig,
  STATE_DIR,
} from '../daemon/config/config.js';

export interface RunDirOption {
  runDir?: string;
}

export function addRunDirOption(command: Command): Command {
  return command.option('--run-dir <dir>', `run directory of the daemon (default ${RUN_DIR})`);
}

export interface StateDirOption extends RunDirOption {
  stateDir?: string;
}

/** For verbs that write journals of migrations. */
export function addStateDirOption(command: Command): Command {
  return addRunDirOption(command).option(
    '--state-dir <dir>',
    `what must outlive a reboot (default ${STATE_DIR})`,
  );
}

export function runDirOf(o: RunDirOption): string {
  return o.runDir === undefined ? configured().runDir : resolve(o.runDir);
}

export function directoriesOf(o: StateDirOption): { runDir: string; stateDir: string } {
  const stateDir = o.stateDir === undefined ? configured().stateDir : resolve(o.stateDir);
  return { runDir: runDirOf(o), stateDir };
}

/* One that cannot be read does not keep anyone from asking how things are. */
function configured(): Config {
  try {
    return readConfig(CONFIG_PATH, { mustExist: false });
  } catch (error) {
    if (error instanceof ConfigError) return defaultConfig();
    throw error;
  }
}
