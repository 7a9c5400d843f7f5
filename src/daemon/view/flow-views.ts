/* From the boundary's tables to what `tiflow flows` and `tiflow status` show. */

import { FLOW_FLAG, type Flow, REASON, ROLE, reasonName } from '../../boundary/abi.gen.js';
import type { Boundary } from '../../boundary/boundary.js';
import { monotonicMs, msOfNs } from '../../libc/monotonic.js';
import type { SocketRecord } from '../../link/inet-diag.js';
import type { SyncAgent } from '../../sync/agent.js';
import { wireOf } from '../../sync/handshake.js';
import { type Tuple, tupleKey, tupleText } from '../../wire/tuple.js';
import type { FlowState, FlowView } from './view.js';

const FINS = FLOW_FLAG.FIN_SENT | FLOW_FLAG.FIN_RECEIVED;

/** Reset, or acknowledged both ways with both FINs: as `flow_is_over` in the data plane. */
export const flowIsOver = (flow: Flow): boolean =>
  (flow.flags & FLOW_FLAG.RESET) !== 0 ||
  ((flow.flags & FINS) === FINS && flow.sndUna === flow.sndNxt);

/** The other end has not shown yet that it exists. */
export const flowIsEmbryonic = (flow: Flow): boolean => (flow.flags & FLOW_FLAG.EMBRYONIC) !== 0;

/** Open, and not over: what is to be kept alive. */
export const flowIsAlive = (flow: Flow): boolean => !flowIsEmbryonic(flow) && !flowIsOver(flow);

/** Whether what comes in on a flow is not taken. */
export const isStuck = (flow: Flow): boolean =>
  (flow.flags & FLOW_FLAG.STUCK) !== 0 && !flowIsOver(flow);

/** The counter of what drops a stuck flow's packets; undefined: it is none of ours. */
export function droppedBy(flow: Flow): string | undefined {
  const since = flow.untakenSince > flow.tookAt ? flow.untakenSince : flow.behindSince;
  return flow.oldPathAt > since ? 'old-path' : undefined;
}

/** Of a host behind this gateway. */
export const isForwarded = (flow: Flow): boolean => (flow.flags & FLOW_FLAG.FORWARDED) !== 0;

const hex = (half: number): string => (half >>> 0).toString(16).padStart(8, '0');

export const tifidText = (flow: Flow): string =>
  hex(flow.initiator.tifidHalf) + hex(flow.responder.tifidHalf);

function stateOf(kernel: Tuple, flow: Flow, agent: SyncAgent): FlowState {
  if (flowIsOver(flow)) return 'ended';
  const state = agent.state(kernel);
  if (state !== 'steady') return state;
  if (flow.flags & FLOW_FLAG.HELD) return 'held';
  return isStuck(flow) ? 'stuck' : 'steady';
}

/** The VM whose flow it is: below the boundary its address changes once more. */
export interface VmOfFlow {
  name: string;
  outsideTuple(inside: Tuple): Tuple;
}

/** One TI flow.  `reason`: why its last attempt to move failed. */
export function flowView(
  kernel: Tuple,
  flow: Flow,
  o: { agent: SyncAgent; reason: string | undefined; vm: VmOfFlow | undefined },
): FlowView {
  const seenMs = Math.max(msOfNs(flow.seenIn), msOfNs(flow.seenOut));
  const gapKnown = flow.moves > 0 && flow.gap > 0n;
  return {
    tifid: tifidText(flow),
    role: flow.role === ROLE.INITIATOR ? 'initiator' : 'responder',
    state: stateOf(kernel, flow, o.agent),
    reason: o.reason ?? (isStuck(flow) ? droppedBy(flow) : undefined) ?? null,
    kernel: tupleText(kernel),
    wire: tupleText(o.vm?.outsideTuple(wireOf(kernel, flow)) ?? wireOf(kernel, flow)),
    moves: flow.moves,
    last_gap_ms: gapKnown ? Math.round(msOfNs(flow.gap)) : null,
    epoch: flow.epoch,
    idle_ms: Math.max(0, Math.round(monotonicMs() - seenMs)),
    tap: o.vm?.name ?? null,
    forwarded: isForwarded(flow),
  };
}

/* A socket without a peer is no connection; TIME-WAIT has nothing left to lose. */
const CONNECTED = new Set([
  'established',
  'syn-sent',
  'fin-wait-1',
  'fin-wait-2',
  'close-wait',
  'last-ack',
  'closing',
]);

const isLoopback = (tuple: Tuple): boolean =>
  tuple.local.startsWith('127.') || tuple.local === '::1' || tuple.local === tuple.remote;

export interface LegacyConnection {
  kernel: Tuple;
  reason: string;
}

/**
 * The machine's connections that no TI flow protects, each with its reason.  `wireOf`: what the wire
 * calls the connection of a socket where this machine's own NAT stands between; undefined: the same.
 */
export function legacyConnections(
  boundary: Pick<Boundary, 'flow' | 'plain'>,
  sockets: readonly SocketRecord[],
  wireOf: (socket: Tuple) => Tuple | undefined,
): LegacyConnection[] {
  const reasons = new Map(boundary.plain().map(([t, plain]) => [tupleKey(t), plain.reason]));
  return sockets
    .filter(({ tuple, state }) => CONNECTED.has(state) && !isLoopback(tuple))
    .flatMap(({ tuple: kernel }) => {
      if (boundary.flow(kernel) !== undefined) return [];
      const known = reasons.get(tupleKey(kernel));
      if (known !== undefined) return { kernel, reason: reasonName(known) };
      const wire = wireOf(kernel);
      if (wire !== undefined && boundary.flow(wire) !== undefined) return [];
      const behind = wire && reasons.get(tupleKey(wire));
      return { kernel, reason: reasonName(behind ?? REASON.LEGACY_UNTRACKED) };
    });
}

/** Connections of VMs that no TI flow protects, as far as they were seen to open. */
export const legacyOfVms = (boundary: Boundary): LegacyConnection[] =>
  boundary
    .plain()
    .filter(([tuple]) => tuple.tap !== undefined)
    .map(([kernel, { reason }]) => ({ kernel, reason: reasonName(reason) }));

export const legacyView = ({ kernel, reason }: LegacyConnection, tap?: string): FlowView => ({
  tifid: null,
  role: null,
  state: 'legacy',
  reason,
  kernel: tupleText(kernel),
  wire: tupleText(kernel),
  moves: 0,
  last_gap_ms: null,
  epoch: 0,
  idle_ms: 0,
  tap: tap ?? null,
  forwarded: false,
});
