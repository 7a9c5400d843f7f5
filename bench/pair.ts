/*
 * Two hosts back to back.  Each can have a boundary that this process holds: no daemon, so nothing
 * moves, but everything before a move is as with one.
 *
 *     a  eth0 10.91.0.1/24 ────veth──── eth0 10.91.0.2/24  b
 */
import { Boundary } from '../src/boundary/boundary.js';
import { connectByVeth, Host } from './host.js';

export const A = '10.91.0.1';
export const B = '10.91.0.2';
export const LINK = 'eth0';

export class Pair {
  readonly a = new Host('a');
  readonly b = new Host('b');
  readonly #boundaries: Array<{ host: Host; boundary: Boundary }> = [];

  constructor() {
    connectByVeth(this.a, LINK, this.b, LINK);
    this.a.ip(`addr add ${A}/24 dev ${LINK}`);
    this.b.ip(`addr add ${B}/24 dev ${LINK}`);
  }

  /** Puts a boundary on both ends; the second time it is the same one. */
  attach(): void {
    if (this.#boundaries.length === 0) {
      for (const host of [this.a, this.b])
        this.#boundaries.push({ host, boundary: openBoundary(host) });
    }
    for (const { host, boundary } of this.#boundaries) {
      boundary.stockHalves();
      host.inside(() => boundary.attach(LINK));
    }
  }

  /** Takes it off both ends, clsact and all. */
  detach(): void {
    for (const { host, boundary } of this.#boundaries) host.inside(() => boundary.detach(LINK));
  }

  /** How many TI flows each end knows. */
  flows(): number[] {
    return this.#boundaries.map(({ boundary }) => boundary.flows().length);
  }

  /** Forgets all flows, as a daemon does once they have ended. */
  forgetFlows(): void {
    for (const { boundary } of this.#boundaries) {
      boundary.consumeEvents(() => undefined);
      for (const [kernel] of boundary.flows()) boundary.command({ verb: 'forget', kernel });
    }
  }

  remove(): void {
    for (const { boundary } of this.#boundaries) boundary.close();
    this.a.remove();
    this.b.remove();
  }
}

/** A boundary that this process holds: no daemon. */
export function openBoundary(host: Host): Boundary {
  const boundary = Boundary.open({ runDir: host.runDir });
  boundary.writeSettings({ enabled: 1, rstSilentMs: 200, plainPeerTtlS: 3600 });
  return boundary;
}
