/* Which run directory a verb talks to: --run-dir, else what the configuration says. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import { CONFIG_PATH, ConfigError, RUN_DIR, readConfig } from '../daemon/config.js';

export interface RunDirOption {
  runDir?: string;
}

export function addRunDirOption(command: Command): Command {
  return command.option('--run-dir <dir>', `run directory of the daemon (default ${RUN_DIR})`);
}

/** A configuration that cannot be read does not keep anyone from asking how things are. */
export function runDirOf(o: RunDirOption): string {
  if (o.runDir !== undefined) return resolve(o.runDir);
  try {
    return readConfig(CONFIG_PATH, { mustExist: false }).runDir;
  } catch (error) {
    if (error instanceof ConfigError) return RUN_DIR;
    throw error;
  }
}
