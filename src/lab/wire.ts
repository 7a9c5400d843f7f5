/**
 * The userspace wire between aramis and the router, as part of a lab (programs/wire.ts is the
 * process that carries the frames).
 */
import { fileURLToPath } from 'node:url';
import type { Lab } from './lab.js';
import { namespacePath } from './namespace.js';
import type { IsnMode } from './randomizer.js';
import { until } from './wait.js';

const PROGRAM = fileURLToPath(new URL('./programs/wire.js', import.meta.url));

export interface WireSettings {
  /** as in 'delay=50ms,loss=1%' */
  impairment: string;
  seed: number;
  /** rewrites initial sequence numbers as well (randomizer.ts) */
  isn?: IsnMode;
}

/** Joins the two TAPs; returns once both have a carrier. */
export async function startWire(lab: Lab, settings: WireSettings): Promise<void> {
  const { aramis, router } = lab.namespaces;
  lab.start('router', 'wire', [
    process.execPath,
    PROGRAM,
    ...[namespacePath(aramis), 'eth0', namespacePath(router), 'aramis0'],
    ...[String(settings.seed), settings.impairment, ...(settings.isn ? [settings.isn] : [])],
  ]);
  await until('the userspace wire', () => {
    const link = lab.run('aramis', ['ip', '-o', 'link', 'show', 'dev', 'eth0']);
    return link.includes('LOWER_UP');
  });
}
