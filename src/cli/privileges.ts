/* What this process may do: effective capabilities (capabilities(7)).
 *
 * Asked before anything is changed, so that a missing privilege is one clear line and not the
 * first system call that happens to fail.
 */

import { readFileSync } from 'node:fs';
import { EXIT, VerbError } from './exit.js';

const CAPABILITIES = {
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_ADMIN: 21,
  CAP_BPF: 39,
} as const;

export type Capability = keyof typeof CAPABILITIES;

/* CAP_SYS_ADMIN mounts the bpffs of the run directory. */
export const CAPABILITIES_NEEDED: readonly Capability[] = [
  'CAP_BPF',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_SYS_ADMIN',
];

/** Those of `wanted` that are missing; CAP_SYS_ADMIN includes CAP_BPF, as the kernel has it. */
export function missingCapabilities(
  wanted: readonly Capability[] = CAPABILITIES_NEEDED,
  processStatus: string = readFileSync('/proc/self/status', 'utf8'),
): Capability[] {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(processStatus)?.[1] ?? '0'}`);
  const has = (capability: Capability) =>
    ((effective >> BigInt(CAPABILITIES[capability])) & 1n) === 1n;
  return wanted.filter(
    (capability) => !has(capability) && !(capability === 'CAP_BPF' && has('CAP_SYS_ADMIN')),
  );
}

/** Throws VerbError "not permitted" when `verb` cannot work in this process. */
export function requirePrivileges(verb: string): void {
  const missing = missingCapabilities();
  if (missing.length === 0) return;
  throw new VerbError(
    `${verb}: not permitted: needs ${missing.join(', ')} (run as root)`,
    EXIT.notPermitted,
  );
}
