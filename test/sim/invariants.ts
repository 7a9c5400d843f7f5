/*
 * What must hold at every moment of every run, checked against what really happened and not
 * against what either agent believes.
 */
import assert from 'node:assert/strict';
import type { Flow, Mapping } from '../../src/boundary/abi.gen.js';
import type { Packet } from '../../src/wire/packet.js';
import { segmentEnd } from '../../src/wire/packet.js';
import { type Seq, seq, seqAdd, seqAfter, seqMax } from '../../src/wire/seq.js';
import { type Tuple, tupleEqual, tupleText } from '../../src/wire/tuple.js';
import { incoming, outgoing } from './boundary-model.js';
import type { Computer } from './computer.js';

/** What an option of a packet says; undefined: the packet has none of that kind. */
const optionOf = (p: Packet, kind: string) =>
  p.options.find((o) => o.kind === kind) as
    | { epoch: number; tiack: number; mac: Uint8Array }
    | undefined;

/**
 * No mapping changes without proof: the packets that led to it were made by the other machine's
 * agent, came from where the mapping leads, and say what the mapping says.
 */
export function checkMapping(
  c: { mapping: Mapping; epoch: number; unproven: boolean; kernel: Tuple },
  o: { flow: Flow; here: Computer; there: Computer; arrivals: Packet[] },
): void {
  const { wire } = c.mapping;
  const [mover, peer] = c.unproven ? [o.here, o.there] : [o.there, o.here];
  assert.ok(o.here.everOwned.has(wire.local), `${wire.local} was never ours`);
  assert.ok(o.there.everOwned.has(wire.remote), `${wire.remote} was never the other's`);
  const moverWire = c.unproven ? wire : reversed(wire);
  const on = (p: Packet, t: Tuple, kind: string) =>
    tupleEqual(outgoing(p), t) && optionOf(p, kind)?.epoch === c.epoch;
  const syns = mover.made.filter((p) => on(p, moverWire, 'ti-sync'));
  const syn = syns.at(-1);
  assert.ok(syn, 'nobody has asked for this');
  const synAck = peer.made
    .filter((p) => on(p, reversed(moverWire), 'ti-sync-ack'))
    .find((p) => isMappingOf(c, o.flow, syn, p));
  assert.ok(synAck, `no handshake leads to ${JSON.stringify(c.mapping)}`);
  if (c.unproven) return;
  const confirm = mover.made.find(
    (p) => on(p, moverWire, 'ti-confirm') && p.ack === seqAdd(synAck.seq, 1),
  );
  assert.ok(confirm, 'the mover has not confirmed this');
  const arrived = o.arrivals.some(
    (p) =>
      on(p, moverWire, 'ti-confirm') &&
      Buffer.compare(
        optionOf(p, 'ti-confirm')?.mac ?? new Uint8Array(0),
        optionOf(confirm, 'ti-confirm')?.mac ?? new Uint8Array(1),
      ) === 0,
  );
  assert.ok(arrived, 'no CONFIRM has come from there');
}

/** The two ISNs and the two TIAcks say what the mapping has to be. */
function isMappingOf(
  c: { mapping: Mapping; unproven: boolean },
  flow: Flow,
  syn: Packet,
  synAck: Packet,
): boolean {
  const moverTiack = optionOf(syn, 'ti-sync')?.tiack ?? 0;
  const peerTiack = optionOf(synAck, 'ti-sync-ack')?.tiack ?? 0;
  const [ourIsn, theirIsn] = c.unproven ? [syn.seq, synAck.seq] : [synAck.seq, syn.seq];
  const [said, heard] = c.unproven ? [moverTiack, peerTiack] : [peerTiack, moverTiack];
  const { mapping: m } = c;
  return (
    m.sndBase === seq(flow.iss + 1 + heard) &&
    m.rcvBase === seq(flow.irs + 1 + said) &&
    seqAdd(m.sndBase, m.sndDelta) === seqAdd(ourIsn, 1) &&
    seqAdd(m.rcvBase, m.rcvDelta) === seqAdd(theirIsn, 1)
  );
}

/**
 * A stateful firewall before each machine: on a new wire, nothing acknowledges what the wire has
 * not carried, and nothing lies before its SYN.  conntrack drops both as INVALID.
 */
export class Firewall {
  /** By the sender's tuple: where its numbering begins, and the end of what has arrived. */
  readonly #begins = new Map<string, Seq>();
  readonly #carried = new Map<string, Seq>();
  /** Every SYN that there was: its sender's tuple and its number. */
  readonly #syns = new Set<string>();

  sent(p: Packet): void {
    const key = tupleText(outgoing(p));
    if (p.flags === 'S') this.#syns.add(`${key} ${p.seq}`);
    if (this.#isLateAnswer(p)) return;
    if (p.flags.includes('S')) {
      this.#begins.set(key, p.seq);
      if (!p.flags.includes('A')) {
        this.#carried.delete(key);
        this.#carried.delete(tupleText(incoming(p)));
      }
    }
    const begin = this.#begins.get(key);
    if (begin === undefined || p.flags.includes('R')) return;
    if (!p.flags.includes('S')) {
      assert.ok(!seqAfter(seqAdd(begin, 1), p.seq), `${key}: SEQ ${p.seq} before the SYN`);
    }
    const carried = this.#carried.get(tupleText(incoming(p)));
    if (!p.flags.includes('A') || carried === undefined) return;
    assert.ok(!seqAfter(p.ack, carried), `${key}: ACK ${p.ack} above ${carried}`);
  }

  arrived(p: Packet): void {
    const key = tupleText(outgoing(p));
    if (!this.#begins.has(key) || p.flags.includes('R') || this.#isLateAnswer(p)) return;
    const before = this.#carried.get(key);
    this.#carried.set(key, before === undefined ? segmentEnd(p) : seqMax(before, segmentEnd(p)));
  }

  /**
   * A SYN/ACK to an attempt whose successor has drawn the same port, from a daemon that was away when
   * either came.  conntrack drops it and waits on for the other.
   */
  #isLateAnswer(p: Packet): boolean {
    const asked = tupleText(incoming(p));
    const [newest, answered] = [this.#begins.get(asked), seqAdd(p.ack, -1)];
    if (p.flags !== 'SA' || newest === undefined || newest === answered) return false;
    assert.ok(this.#syns.has(`${asked} ${answered}`), `${asked}: no SYN ${answered}`);
    return true;
  }
}

/** Everything is bounded. */
export function checkBounds(host: Computer): void {
  const flows = host.boundary.flows.size;
  assert.ok(host.load.candidates <= 4 * flows, `${host.load.candidates} candidates`);
  assert.ok(host.load.moving <= flows, `${host.load.moving} moving`);
  // Its mapping, attempt and candidates, and the mappings of the last minute.
  assert.ok(host.boundary.wires.size <= 40 * flows, `${host.boundary.wires.size} wires`);
}

/** Both ends of a flow agree on what is between them. */
export function checkMirrored(a: Mapping | undefined, b: Mapping | undefined): void {
  if (a === undefined || b === undefined) {
    assert.equal(a, b, 'only one end has moved');
    return;
  }
  assert.equal(tupleText(a.wire), tupleText(reversed(b.wire)));
  assert.equal(a.sndDelta, b.rcvDelta);
  assert.equal(a.rcvDelta, b.sndDelta);
  assert.equal(a.sndBase, b.rcvBase);
  assert.equal(a.rcvBase, b.sndBase);
}

const reversed = (t: Tuple): Tuple => ({
  local: t.remote,
  localPort: t.remotePort,
  remote: t.local,
  remotePort: t.localPort,
});
