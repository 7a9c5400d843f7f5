/*
 * The candidates of all flows: bounded, each for a short time.
 *
 * Only the holder of a flow's key can make one, but a captured SYN can be replayed from many
 * addresses.  So the one that has to go when a flow has too many is the oldest of the nonce that
 * has most: replays of one SYN crowd out each other, never another attempt of the mover.
 */
import { type Tuple, tupleKey } from '../wire/tuple.js';
import type { Candidate } from './responder.js';

export interface CandidateLimits {
  perFlow: number;
  total: number;
  lifetimeMs: number;
}

interface Entry {
  candidate: Candidate;
  flow: string;
  expiresAt: number;
}

export class CandidateTable {
  /** By wire, in the order of their expiry. */
  readonly #entries = new Map<string, Entry>();
  readonly #wiresOfFlow = new Map<string, Set<string>>();

  constructor(private readonly limits: CandidateLimits) {}

  get size(): number {
    return this.#entries.size;
  }

  get(wire: Tuple): Candidate | undefined {
    return this.#entries.get(tupleKey(wire))?.candidate;
  }

  /** Those of one flow, oldest first. */
  of(kernel: Tuple): Candidate[] {
    const candidates: Candidate[] = [];
    for (const wire of this.#wiresOfFlow.get(tupleKey(kernel)) ?? []) {
      const entry = this.#entries.get(wire);
      if (entry !== undefined) candidates.push(entry.candidate);
    }
    return candidates;
  }

  /** Replaces what has the same wire.  Comes back: those that had to go for it. */
  add(candidate: Candidate, nowMs: number): Candidate[] {
    this.remove(candidate.wire);
    const crowded = this.of(candidate.kernel);
    const evicted = crowded.length >= this.limits.perFlow ? [leastMissed(crowded, candidate)] : [];
    const [oldest] = this.#entries.values();
    if (evicted.length === 0 && oldest !== undefined && this.size >= this.limits.total) {
      evicted.push(oldest.candidate);
    }
    for (const gone of evicted) this.remove(gone.wire);
    const flow = tupleKey(candidate.kernel);
    const wire = tupleKey(candidate.wire);
    this.#entries.set(wire, { candidate, flow, expiresAt: nowMs + this.limits.lifetimeMs });
    const wires = this.#wiresOfFlow.get(flow) ?? new Set();
    this.#wiresOfFlow.set(flow, wires.add(wire));
    return evicted;
  }

  remove(wire: Tuple): void {
    const text = tupleKey(wire);
    const entry = this.#entries.get(text);
    if (entry === undefined) return;
    this.#entries.delete(text);
    const wires = this.#wiresOfFlow.get(entry.flow);
    wires?.delete(text);
    if (wires?.size === 0) this.#wiresOfFlow.delete(entry.flow);
  }

  /** Those whose time is up. */
  expired(nowMs: number): Candidate[] {
    const over: Candidate[] = [];
    for (const { candidate, expiresAt } of this.#entries.values()) {
      if (expiresAt > nowMs) break;
      over.push(candidate);
    }
    return over;
  }

  /** When the next one expires; undefined: there is none. */
  nextExpiry(): number | undefined {
    const [oldest] = this.#entries.values();
    return oldest?.expiresAt;
  }
}

/** `crowded` is not empty; `coming` counts for its nonce. */
function leastMissed(crowded: Candidate[], coming: Candidate): Candidate {
  const count = (c: Candidate): number =>
    [...crowded, coming].filter((other) => other.sync.nonce === c.sync.nonce).length;
  return crowded.reduce((a, b) => (count(b) > count(a) ? b : a));
}
