/**
 * All cases of the lab, in the order in which they are best read and run.
 */
import { LabError } from '../namespace.js';
import type { Case } from '../stage.js';
import { congested } from './congested.js';
import { daemonKilled } from './daemon-killed.js';
import { forged } from './forged.js';
import { freeze } from './freeze.js';
import { holdKeepalive, holdOver, holdRetries } from './hold.js';
import { legacyClient, legacyServer } from './legacy.js';
import { blackout, clientMoves, halfClosed, idle, many, moveBack, tenMoves } from './moves.js';
import { paper } from './paper.js';
import { natReboot, natRenumbered, roamNat, roamSleep } from './roam.js';
import { sameSubnet } from './same-subnet.js';
import { stranger } from './stranger.js';

export const CASES: readonly Case[] = [
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
  roamNat,
  roamSleep,
  natReboot,
  natRenumbered,
  congested,
  holdRetries,
  holdKeepalive,
  holdOver,
  freeze,
  many,
];

/** Throws LabError naming the cases there are. */
export function findCase(name: string): Case {
  const found = CASES.find((c) => c.name === name);
  if (found) return found;
  throw new LabError(`no case ${name} (there are ${CASES.map((c) => c.name).join(', ')})`);
}
