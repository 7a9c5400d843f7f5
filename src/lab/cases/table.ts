/**
 * All cases of the lab, in the order in which they are best read and run.
 */
import { LabError } from '../namespace.js';
import { mariadb } from '../real-programs/mariadb.js';
import { nginx } from '../real-programs/nginx.js';
import { postgresql } from '../real-programs/postgresql.js';
import { redis } from '../real-programs/redis.js';
import { rsync } from '../real-programs/rsync.js';
import { ssh } from '../real-programs/ssh.js';
import type { Case } from '../stage.js';
import type { VmCase } from '../vm/stage.js';
import { daemonKilled } from './daemon-killed.js';
import { forged } from './forged.js';
import { legacyClient, legacyServer } from './legacy.js';
import { blackout, clientMoves, halfClosed, idle, many, moveBack, tenMoves } from './moves.js';
import { paper } from './paper.js';
import { sameSubnet } from './same-subnet.js';
import { stranger } from './stranger.js';

/** Of either topology. */
export type AnyCase = Case | VmCase;

export const CASES: readonly AnyCase[] = [
  paper,
  clientMoves,
  moveBack,
  tenMoves,
  idle,
  blackout,
  halfClosed,
  legacyClient,
  legacyServer,
  forged,
  stranger,
  sameSubnet,
  daemonKilled,
  many,
  ssh,
  postgresql,
  nginx,
  redis,
  rsync,
  mariadb,
];

/** Throws LabError naming the cases there are. */
export function findCase(name: string): AnyCase {
  const found = CASES.find((c) => c.name === name);
  if (found) return found;
  throw new LabError(`no case ${name} (there are ${CASES.map((c) => c.name).join(', ')})`);
}
