/* The daemon as a service: one run directory, one API, and a daemon for each configuration.
 *
 *   start ──► daemon ──► SIGHUP, `tiflow reload`: close, and another one ──► SIGTERM, API: close
 *
 * A daemon looks at everything when it begins, whoever was before it; so a configuration that is read
 * again needs no way of its own.  Whoever is connected to the API stays so.
 */

import type { Logger } from 'pino';
import { onEvent, soon } from '../libc/guard.js';
import { serveApi } from './api/api.js';
import { type Config, ConfigError } from './config/config.js';
import { claimRunDirectory } from './config/run-directory.js';
import { Daemon, type Subscribers } from './daemon.js';
import { stamp } from './view/monitor-events.js';

/**
 * Runs until a signal or the API ends it.  `read`: the configuration of now; throws ConfigError.
 * Throws RunDirectoryError or SystemError.
 */
export async function runDaemon(read: () => Config, log: Logger): Promise<void> {
  const config = read();
  const directory = claimRunDirectory(config.runDir);
  try {
    const service = new Service(config, { read, log });
    try {
      const api = await serveApi(directory, () => service.daemon, log);
      try {
        service.daemon.begin();
        await service.ended;
        service.tellEnd();
      } finally {
        await api.close();
      }
    } finally {
      service.daemon.close();
    }
  } finally {
    directory.release();
  }
}

class Service {
  readonly ended: Promise<void>;
  daemon: Daemon;
  readonly #read: () => Config;
  readonly #log: Logger;
  readonly #runDir: string;
  readonly #subscribers: Subscribers = new Set();
  #end: () => void = () => undefined;

  constructor(config: Config, { read, log }: { read: () => Config; log: Logger }) {
    this.#read = read;
    this.#log = log;
    this.#runDir = config.runDir;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    for (const signal of ['SIGTERM', 'SIGINT'] as const) onEvent(process, signal, this.#end);
    onEvent(process, 'SIGHUP', () => this.#reloadBySignal());
    this.daemon = this.#newDaemon(config);
  }

  tellEnd(): void {
    for (const subscriber of this.#subscribers) subscriber(stamp({ event: 'stopping' }));
  }

  #newDaemon(config: Config): Daemon {
    const daemon = new Daemon({
      ...{ config, log: this.#log, subscribers: this.#subscribers },
      shutdown: () => this.#end(),
      reload: () => this.#reload(),
    });
    try {
      daemon.open();
    } catch (error) {
      daemon.close();
      throw error;
    }
    return daemon;
  }

  #reloadBySignal(): void {
    try {
      this.#reload();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      this.#log.error({ err: error }, `the configuration of before stays: ${error.message}`);
    }
  }

  /* The request that asks for it is answered first. */
  #reload(): void {
    const config = this.#read();
    if (config.runDir !== this.#runDir) {
      throw new ConfigError(
        `run_dir: ${this.#runDir} stays until the daemon is started anew (not ${config.runDir})`,
      );
    }
    soon(() => {
      this.#log.level = config.log;
      this.#log.info('the configuration was read again');
      this.daemon.close();
      this.daemon = this.#newDaemon(config);
      this.daemon.begin();
    });
  }
}
