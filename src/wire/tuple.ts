/*
 * A connection as one endpoint names it: its own address and port first, whatever the
 * direction of the packet at hand.
 */
import { type Address, family } from './address.js';

/** Two endpoints of a TCP connection, ours first.  Ports in host order. */
export interface Tuple {
  local: Address;
  remote: Address;
  localPort: number;
  remotePort: number;
  /** Interface index of the tap of the VM whose connection it is; not there: our own kernel's. */
  tap?: number;
}

/** '192.0.2.10:22 > 203.0.113.7:40000', '[2001:db8::1]:22 > …': for whoever looks at it. */
export const tupleText = (t: Tuple): string =>
  `${endpoint(t.local, t.localPort)} > ${endpoint(t.remote, t.remotePort)}`;

/** Canonical and unique on this machine: fit for a map key. */
export const tupleKey = (t: Tuple): string =>
  t.tap === undefined ? tupleText(t) : `${tupleText(t)} @${t.tap}`;

/** Whether both name the same connection from the same end. */
export const tupleEqual = (a: Tuple, b: Tuple): boolean =>
  a.localPort === b.localPort &&
  a.remotePort === b.remotePort &&
  a.local === b.local &&
  a.remote === b.remote &&
  a.tap === b.tap;

/** The same connection as the other end names it: not on a tap of ours. */
export const tupleReverse = (t: Tuple): Tuple => ({
  local: t.remote,
  remote: t.local,
  localPort: t.remotePort,
  remotePort: t.localPort,
});

const endpoint = (a: Address, port: number): string =>
  family(a) === 6 ? `[${a}]:${port}` : `${a}:${port}`;
