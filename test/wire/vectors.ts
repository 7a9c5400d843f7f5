/*
 * The test vectors (test/vectors/*.json), read.  They are made by generate.py from
 * docs/PROTOCOL.md alone, never by this project's code.
 */
import { readFileSync } from 'node:fs';

// Compiled tests lie in <out>/test/wire, one level deeper than the sources.
const FOLDER = new URL('../../../test/vectors/', import.meta.url);

/** One packet: its notation, and its bytes in hex. */
export interface PacketVector {
  line: string;
  hex: string;
}

export interface OptionVector {
  name: string;
  flags: string;
  notation: string;
  hex: string;
}

export interface KeyVector {
  name: string;
  initiator_open: string;
  responder_open: string;
  psk: string | null;
  /** null: the flow has none. */
  key_root: string | null;
  key_initiator: string | null;
  key_responder: string | null;
}

export interface MacVector {
  name: string;
  sender: 'initiator' | 'responder';
  key: string;
  covered: string;
  mac: string;
}

export interface SetUpVector {
  name: string;
  kernel: PacketVector;
  wire: PacketVector;
}

export interface DeltasVector {
  snd_delta: number;
  rcv_delta: number;
  snd_base: number;
  rcv_base: number;
}

export interface SynchronizationVector {
  name: string;
  family: 'ipv4' | 'ipv6';
  mover: 'initiator' | 'responder';
  psk: string | null;
  initiator_open: string;
  responder_open: string;
  iss_initiator: number;
  iss_responder: number;
  epoch: number;
  tiack_mover: number;
  tiack_peer: number;
  wire_isn_mover: number;
  wire_isn_peer: number;
  nonce_mover: string;
  nonce_peer: string;
  deltas: { mover: DeltasVector; peer: DeltasVector };
  packets: ({ name: 'SYN' | 'SYN/ACK' | 'CONFIRM' | 'ACK' | 'TI_RST' | 'RST' } & PacketVector)[];
  data: { name: string; sender: 'mover' | 'peer'; kernel: PacketVector; wire: PacketVector }[];
  /** ICMP errors from the new path to the mover, as they come and as its kernel gets them. */
  icmp: { name: string; wire: string; kernel: string }[];
}

/** The text of a file of vectors. */
export const vectorText = (name: string): string => readFileSync(new URL(name, FOLDER), 'utf8');

/** Where the script that makes the vectors lies. */
export const GENERATOR = new URL('generate.py', FOLDER);

export const optionVectors = JSON.parse(vectorText('options.json')) as OptionVector[];
export const keyVectors = JSON.parse(vectorText('keys.json')) as KeyVector[];
export const macVectors = JSON.parse(vectorText('macs.json')) as MacVector[];
export const setUpVectors = JSON.parse(vectorText('set-up.json')) as SetUpVector[];
export const synchronizationVectors = JSON.parse(
  vectorText('synchronization.json'),
) as SynchronizationVector[];

/** The bytes of a hex string. */
export const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));

/** The hex of some bytes. */
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
