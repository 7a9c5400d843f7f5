/*
 * The TCP packets that a synchronization sends, whole.
 *
 * SYN and SYN/ACK are real ones: firewalls and NATs on the new path learn the connection from
 * them.  They repeat what was negotiated originally, window scale above all (without it
 * conntrack takes most of the data for out of window), but no timestamps: MSS 4 + SACK-permitted
 * 2 + window scale 3 + TI_SYNC 31 = 40 bytes, all that a TCP header has.
 */
import { type Flow, NEGOTIATED } from '../boundary/abi.gen.js';
import { family } from '../wire/address.js';
import type { TcpOption } from '../wire/option.js';
import type { Packet } from '../wire/packet.js';
import { type Seq, seq, seqAdd } from '../wire/seq.js';
import { type Tuple, tupleReverse } from '../wire/tuple.js';

/** A window in a SYN is never scaled (RFC 7323, section 2.2): the most there is. */
const SYN_WINDOW = 65535;

const NOTHING = new Uint8Array(0);

/** IPv4 or IPv6 header and TCP header, without options: what MSS leaves out of an MTU. */
const headerBytes = (t: Tuple): number => (family(t.local) === 4 ? 40 : 60);

export const mssOf = (wire: Tuple, mtu: number): number => mtu - headerBytes(wire);

/** The mover's SYN. */
export const synSegment = (
  o: Pick<Packet, 'seq'> & { wire: Tuple; flow: Flow; mss: number; sync: TcpOption },
): Packet => ({
  ...toRemote(o.wire),
  flags: 'S',
  seq: o.seq,
  ack: seq(0),
  window: SYN_WINDOW,
  options: [...negotiated(o.flow, o.mss), o.sync],
  payload: NOTHING,
});

/** The peer's answer to it. */
export const synAckSegment = (
  o: Pick<Packet, 'seq' | 'ack'> & { wire: Tuple; flow: Flow; syncAck: TcpOption },
): Packet => ({
  ...toRemote(o.wire),
  flags: 'SA',
  seq: o.seq,
  ack: o.ack,
  window: SYN_WINDOW,
  options: [...negotiated(o.flow, o.flow.mssOut), o.syncAck],
  payload: NOTHING,
});

/** An ACK without data, in whichever view `tuple` and the numbers are; CONFIRM is one. */
export const pureAck = (
  tuple: Tuple,
  o: Pick<Packet, 'seq' | 'ack' | 'window'> & { option?: TcpOption },
): Packet => ({
  ...toRemote(tuple),
  flags: 'A',
  seq: o.seq,
  ack: o.ack,
  window: o.window,
  options: o.option === undefined ? [] : [o.option],
  payload: NOTHING,
});

/** The reset that RFC 9293, section 3.10.7.1 has for `to`; bare, or with a TI_RST. */
export function resetOf(to: Packet, option?: TcpOption): Packet {
  const acked = to.flags.includes('A');
  return {
    source: to.destination,
    sourcePort: to.destinationPort,
    destination: to.source,
    destinationPort: to.sourcePort,
    flags: acked ? 'R' : 'RA',
    seq: acked ? to.ack : seq(0),
    ack: acked ? seq(0) : seqAdd(to.seq, 1),
    window: 0,
    options: option === undefined ? [] : [option],
    payload: NOTHING,
  };
}

/**
 * What ends the near socket of a flow, in its own view and in its peer's name.  SEQ must be exactly
 * RCV.NXT (RFC 5961, section 3.2), which is the highest ACK that it has sent.
 */
export const resetFromPeer = (kernel: Tuple, flow: Flow): Packet => ({
  ...toRemote(tupleReverse(kernel)),
  flags: 'R',
  seq: flow.rcvNxt,
  ack: seq(0),
  window: 0,
  options: [],
  payload: NOTHING,
});

/** Our first data segment's worth of headers, for an ICMP error to quote. */
export const quotedSegment = (kernel: Tuple, at: Seq): Packet =>
  pureAck(kernel, { seq: at, ack: seq(0), window: 0 });

function negotiated(flow: Flow, mss: number): TcpOption[] {
  const options: TcpOption[] = mss === 0 ? [] : [{ kind: 'mss', mss }];
  if ((flow.options & NEGOTIATED.SACK) !== 0) options.push({ kind: 'sack-permitted' });
  if ((flow.options & NEGOTIATED.WSCALE) !== 0) {
    options.push({ kind: 'wscale', shift: flow.wscaleOut });
  }
  return options;
}

const toRemote = (t: Tuple) => ({
  source: t.local,
  sourcePort: t.localPort,
  destination: t.remote,
  destinationPort: t.remotePort,
});
