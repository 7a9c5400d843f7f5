/*
 * A flow as the data plane has it when its handshake is just over.
 */
import { type Flow, type Mapping, NEGOTIATED, type TiOpen } from '../../src/boundary/abi.gen.js';
import { type Seq, seq, seqAdd } from '../../src/wire/seq.js';
import type { Tuple } from '../../src/wire/tuple.js';

export const tiOpen = (tifidHalf: number, keyHalf: Uint8Array, keyId = 0): TiOpen => ({
  kind: 253,
  length: 20,
  exid: 0x5449,
  versionSubtype: 0x10,
  flags: 0,
  keyId,
  reserved: 0,
  tifidHalf,
  keyHalf,
});

const emptyMapping = (kernel: Tuple): Mapping => ({
  wire: kernel,
  sndDelta: seq(0),
  rcvDelta: seq(0),
  sndBase: seq(0),
  rcvBase: seq(0),
  redirect: 0,
});

export const openedFlow = (o: {
  kernel: Tuple;
  role: number;
  initiator: TiOpen;
  responder: TiOpen;
  iss: Seq;
  irs: Seq;
  epoch?: number;
}): Flow => ({
  initiator: o.initiator,
  responder: o.responder,
  iss: o.iss,
  irs: o.irs,
  sndNxt: seqAdd(o.iss, 1),
  rcvNxt: seqAdd(o.irs, 1),
  rcvBefore: seqAdd(o.irs, 1),
  seenOut: 1n,
  resumedAt: 0n,
  resentSince: 0n,
  resent: 0,
  // Whether a kernel takes what comes is not modelled: these here do.
  ...{ tookAt: 0n, behindSince: 0n, behind: 0, untakenSince: 0n, untaken: 0, oldPathAt: 0n },
  ...{ knock: seq(0), knockedAt: 0n },
  frozenUntil: 0n,
  sndUna: seqAdd(o.iss, 1),
  rcvMax: seqAdd(o.irs, 1),
  seenIn: 1n,
  created: 1n,
  windowIn: 1000,
  windowInMax: 1000,
  rcvFin: o.irs,
  windowOut: 1000,
  mssOut: 1460,
  mssIn: 1460,
  flags: 0,
  active: 0,
  role: o.role,
  options: NEGOTIATED.SACK | NEGOTIATED.WSCALE,
  wscaleOut: 7,
  wscaleIn: 7,
  epoch: o.epoch ?? 0,
  moves: 0,
  nextHop: new Uint8Array(6),
  outside: 0,
  movedAt: 0n,
  gap: 0n,
  gapSince: 0n,
  mapping: [emptyMapping(o.kernel), emptyMapping(o.kernel)],
});
