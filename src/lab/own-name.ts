/**
 * Namespaces and directories of one process - a test, a measurement - that are no lab on record.
 * Their names say whose they are; what a process that was killed has left, the next one sweeps.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deleteNamespace } from './namespace.js';
import { mountsBelow, unmountBelow } from './registry.js';

const PREFIX = 'tiflow-of';
const NAMESPACES = '/run/netns';

let hasSwept = false;

/** A name for a namespace, or for a directory below tmpdir(), that no other process takes. */
export function ownName(name: string): string {
  if (!hasSwept) sweepOwn();
  return `${PREFIX}-${process.pid}-${name}`;
}

/** Takes away what has the name of a process that is no more; the names. */
export function sweepOwn(): string[] {
  hasSwept = true;
  const [namespaces, directories] = [staleIn(NAMESPACES), staleIn(tmpdir())];
  for (const name of namespaces) deleteNamespace(name);
  for (const name of directories) removeOwn(join(tmpdir(), name));
  return [...namespaces, ...directories];
}

/** A directory, whatever is mounted below. */
export function removeOwn(directory: string): void {
  if (mountsBelow(directory).length > 0) unmountBelow(directory);
  rmSync(directory, { recursive: true, force: true });
}

function staleIn(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).filter((name) => {
    const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  });
}
