/**
 * What of a lab must not outlive it: namespaces, processes, mounts, its directory.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mountsBelow } from '../../src/lab/registry.js';

const LABS = '/run/tiflow-lab';

/** What is left of the lab, in words; empty: nothing. */
export function leftovers(lab: string): string[] {
  const directory = `${LABS}/${lab}`;
  return [
    ...namespaces(lab).map((name) => `namespace ${name}`),
    ...processesNaming(directory).map((process) => `process ${process}`),
    ...mountsBelow(directory).map((mount) => `mount ${mount}`),
    ...(existsSync(directory) ? [`directory ${directory}`] : []),
  ];
}

const namespaces = (lab: string): string[] =>
  existsSync('/run/netns')
    ? readdirSync('/run/netns').filter((name) => name.startsWith(`tl-${lab}-`))
    : [];

/** Every process of a lab has its directory or its namespace in its command line or environment. */
function processesNaming(directory: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => `${pid} ${commandLine(pid)}`)
    .filter((text) => text.includes(`${directory}/`));
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}
