/*
 * What is asked of the path and of the host at its end: three SYNs, each an ordinary one of this
 * machine's kernel but for our option; and the reset that ends what a SYN began.
 */
import type { Address } from '../wire/address.js';
import { encodeOption, type TcpOption } from '../wire/option.js';
import { HOP_LIMIT, type Packet } from '../wire/packet.js';
import { type Seq, seq, seqAdd } from '../wire/seq.js';
import type { TiOption } from '../wire/ti-option.js';

export type TiOpen = TiOption & { kind: 'ti-open' };

export interface Ends {
  source: Address;
  sourcePort: number;
  destination: Address;
  destinationPort: number;
}

/** Which options this machine's kernel puts into its SYNs: sysctl net.ipv4.tcp_... */
export interface KernelOptions {
  mss: number;
  timestamps: boolean;
  sack: boolean;
  wscale: boolean;
}

/** As many random bytes as asked for. */
export type Random = (bytes: number) => Uint8Array;

const WSCALE = 7;
const WINDOW = 64240;
/** With so many bytes of options, four of them NOPs in a row, a boundary finds no room for TI_OPEN. */
const NO_ROOM = 24;

const number = (random: Random): number => new DataView(random(4).buffer).getUint32(0);

/** The options of a SYN of this machine's kernel, in its order. */
export function kernelOptions(o: KernelOptions, random: Random): TcpOption[] {
  const options: TcpOption[] = [{ kind: 'mss', mss: o.mss }];
  if (o.sack) options.push({ kind: 'sack-permitted' });
  if (o.timestamps) options.push({ kind: 'timestamps', value: number(random), echo: 0 });
  if (o.wscale) options.push({ kind: 'nop' }, { kind: 'wscale', shift: WSCALE });
  return options;
}

export const optionBytes = (options: readonly TcpOption[]): number =>
  options.reduce((sum, option) => sum + encodeOption(option).length, 0);

/* A boundary on this machine leaves it as it is: the SYN has the option already. */
export function tiOpen(keyId: number, random: Random): TiOpen {
  const tifidHalf = number(random) || 1;
  return { kind: 'ti-open', flags: 0, keyId, reserved: 0, tifidHalf, keyHalf: random(8) };
}

/** The same without TI_OPEN; padded, or a boundary on this machine would add its own. */
export function padded(options: readonly TcpOption[]): TcpOption[] {
  const missing = Math.max(0, NO_ROOM - optionBytes(options));
  return [...options, ...Array.from({ length: missing }, (): TcpOption => ({ kind: 'nop' }))];
}

/**
 * Those of a synchronization of a flow that nobody has.  A host with tiflow answers it with a bare
 * reset (PROTOCOL.md, section 7.3); one without takes it for an ordinary SYN.
 */
export function strangeSync(o: KernelOptions, random: Random): TcpOption[] {
  return [
    { kind: 'mss', mss: o.mss },
    { kind: 'sack-permitted' },
    { kind: 'wscale', shift: WSCALE },
    {
      kind: 'ti-sync',
      ...{ epoch: 1, tiack: 0, nonce: number(random), mac: random(8) },
      ...{ initiatorHalf: number(random), responderHalf: number(random) },
    },
  ];
}

export const syn = (ends: Ends, iss: Seq, options: TcpOption[]): Packet => ({
  ...ends,
  ...{ flags: 'S', seq: iss, ack: seq(0), window: WINDOW, options, payload: new Uint8Array(0) },
});

/** Ends what the SYN began at the far end, whether or not its answer came here. */
export const resetOf = (p: Packet): Packet => ({
  ...p,
  ...{ flags: 'R', seq: seqAdd(p.seq, 1), window: 0, options: [], hopLimit: HOP_LIMIT },
});
