/* Masqueraded connections of hosts behind this gateway.  The kernel forgets one with the address that
 * it has lent, although its flow goes on from another: it is put back as what `snat` would have made.
 *
 *   address goes ──► the kernel forgets ──► put back ──► flow moves, still named by the old address
 *
 * What its host sends in between may have been lent another address already: that is undone.
 */

import type { Boundary } from '../../boundary/boundary.js';
import { SystemError } from '../../libc/errno.js';
import type { Poller } from '../../libc/poller.js';
import {
  forgetTracked,
  NETLINK_NETFILTER,
  restoreTranslation,
  type Translation,
} from '../../link/conntrack.js';
import { ConntrackMonitor } from '../../link/conntrack-monitor.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { Address } from '../../wire/address.js';
import { type Tuple, tupleText } from '../../wire/tuple.js';
import { flowIsOver, isForwarded } from '../view/flow-views.js';

export interface TranslationsOptions {
  boundary: Pick<Boundary, 'flow' | 'attached'>;
  netlink: Pick<Netlink, 'request'>;
  poller: Poller;
  /** Whether an interface of this machine has the address now. */
  isOurs(address: Address): boolean;
  /** A connection could not be put back, or none can. */
  warn(message: string, error: unknown): void;
}

export class Translations {
  readonly #o: TranslationsOptions;
  #monitor: ConntrackMonitor | undefined;
  #isUnable = false;

  constructor(o: TranslationsOptions) {
    this.#o = o;
  }

  /** To be called when interfaces were attached: only gateways listen. */
  attached(): void {
    if (this.#monitor !== undefined || this.#isUnable) return;
    if (this.#o.boundary.attached('gateway').length === 0) return;
    try {
      this.#monitor = new ConntrackMonitor(this.#o.poller, (each) => this.forgotten(each));
    } catch (error) {
      this.#isUnable = true;
      this.#o.warn('masqueraded connections will not move', error);
    }
  }

  /** To be called with each translated connection that the kernel has forgotten. */
  forgotten(translation: Translation): void {
    const { source, sourcePort, destination, destinationPort } = translation.reply;
    const kernel: Tuple = {
      ...{ local: destination, localPort: destinationPort },
      ...{ remote: source, remotePort: sourcePort },
    };
    const flow = this.#o.boundary.flow(kernel);
    if (flow === undefined || !isForwarded(flow) || flowIsOver(flow)) return;
    // Else it was idle for too long, or somebody wants it forgotten.
    if (this.#o.isOurs(destination)) return;
    try {
      this.#restore(translation);
    } catch (error) {
      this.#o.warn(`the connection ${tupleText(kernel)} is not translated any more`, error);
    }
  }

  close(): void {
    this.#monitor?.close();
  }

  #restore(translation: Translation): void {
    const restore = restoreTranslation(translation);
    const attempted = `track ${translation.original.source} again`;
    try {
      this.#request(restore, attempted);
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== 'EEXIST') throw error;
      this.#request(forgetTracked(translation.original), 'forget what is tracked instead');
      this.#request(restore, attempted);
    }
  }

  #request(message: Uint8Array, attempted: string): void {
    this.#o.netlink.request(message, attempted, NETLINK_NETFILTER);
  }
}
