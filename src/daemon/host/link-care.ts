/* What a link is owed when its carrier or its addresses change, or when the machine was moved with
 * its links up: new addresses are asked for and announced, and whoever waits is told when the link
 * has settled.
 *
 * On a link that is the one it was, the same lease comes back within a round trip of DHCP, and
 * flows that were held meanwhile go on where they were: a false alarm costs that much.
 */

import type { Logger } from 'pino';
import type { Boundary } from '../../boundary/boundary.js';
import { attempt } from '../../libc/guard.js';
import type { Poller } from '../../libc/poller.js';
import { Announcer } from '../../link/announce.js';
import { Autoconfiguration, kernelAutoconfigures } from '../../link/autoconf.js';
import { renewAddresses } from '../../link/dhcp.js';
import type { LinkChange, LinkMonitor } from '../../link/monitor.js';
import { ResumeWatch } from '../../link/resume.js';
import type { ResumeReason } from '../../link/resume-detector.js';
import type { Netlink } from '../../netlink/netlink.js';
import { type Address, family } from '../../wire/address.js';
import type { Emit } from '../view/monitor-events.js';
import { type LinkCounts, LinkMemory } from './link-memory.js';
import type { Settling } from './settling.js';

export interface LinkCareOptions {
  boundary: Pick<Boundary, 'attached'>;
  netlink: Netlink;
  poller: Poller;
  monitor: Pick<LinkMonitor, 'links'>;
  settling: Settling;
  runDir: string;
  /** A command to renew addresses with, instead of the system's DHCP client. */
  renew: string | undefined;
  emit: Emit;
  log: Logger;
}

export class LinkCare {
  #o: LinkCareOptions;
  #autoconf: Autoconfiguration;
  #memory: LinkMemory;
  #announcer: Announcer;
  #resume: ResumeWatch;
  #renewals = new Map<string, 'running' | 'again'>();

  constructor(o: LinkCareOptions) {
    this.#o = o;
    this.#autoconf = new Autoconfiguration(o.netlink, o.poller, (name) => o.settling.end(name, 6));
    this.#announcer = new Announcer(o.netlink);
    this.#memory = new LinkMemory(o.runDir, () => this.#linkCounts());
    this.#resume = new ResumeWatch(o.poller, (reason, name) => this.#resumed(reason, name));
  }

  /** To be called with each change that the monitor sees; only links with a boundary matter. */
  changed(change: LinkChange): void {
    if (change.type === 'address-added') this.#addressAdded(change.interface, change.address);
    if (change.type !== 'carrier') return;
    this.#resume.noticed(change.interface);
    this.#carrierChanged(change.interface, change.up);
  }

  /** A boundary has come to a link. */
  attached(): void {
    this.#memory.remember();
  }

  /** Does for a cable that was changed while no daemon ran what that one would have done. */
  catchUp(): void {
    const changed = this.#memory.changed();
    this.#replug(({ name }) => changed.includes(name));
    this.#memory.remember();
  }

  close(): void {
    this.#resume.close();
    this.#memory.close();
    this.#autoconf.close();
    this.#announcer.close();
  }

  /* What is behind a link that is up may be another network now. */
  #resumed(reason: ResumeReason, only: string | undefined): void {
    const attached = this.#o.boundary.attached();
    if (only !== undefined && !attached.includes(only)) return;
    const where = only === undefined ? {} : { interface: only };
    this.#o.log.info({ reason, ...where }, 'this machine seems to have been moved');
    this.#o.emit({ event: 'resumed', reason, ...where });
    this.#replug(({ name }) => (only === undefined ? attached.includes(name) : name === only));
  }

  #replug(concerned: (link: { name: string }) => boolean): void {
    for (const link of this.#o.monitor.links()) {
      if (!link.carrier || !concerned(link)) continue;
      this.#carrierChanged(link.name, false);
      this.#carrierChanged(link.name, true);
    }
  }

  #addressAdded(name: string, address: Address): void {
    // A router's new prefix: those of before are dropped next, and until then seem to be good still.
    const isJudged = family(address) === 6 && kernelAutoconfigures(name);
    if (!isJudged) this.#o.settling.end(name, family(address));
    if (!this.#o.boundary.attached().includes(name)) return;
    try {
      this.#announcer.announce(name, address);
    } catch (error) {
      this.#o.log.warn({ err: error, interface: name, address }, 'not announced');
    }
  }

  /* The network behind the link may be another one when it comes back. */
  #carrierChanged(name: string, up: boolean): void {
    if (!this.#o.boundary.attached().includes(name)) return;
    this.#memory.remember();
    this.#o.settling.begin(name);
    if (!up) {
      attempt(() => this.#autoconf.carrierDown(name));
      return;
    }
    attempt(() => this.#autoconf.carrierUp(name));
    if (!kernelAutoconfigures(name)) this.#o.settling.end(name, 6);
    this.#renew(name);
  }

  /* One at a time: a client that is told twice at once may be started twice. */
  #renew(name: string): void {
    const renewing = this.#renewals.has(name);
    this.#renewals.set(name, renewing ? 'again' : 'running');
    if (renewing) return;
    renewAddresses(name, { renew: this.#o.renew })
      .then(
        (renewed) => {
          if (renewed === undefined) this.#o.settling.end(name, 4);
          else this.#o.emit({ event: 'dhcp-renewed', interface: name, client: renewed.client });
        },
        (error: unknown) => {
          this.#o.log.warn({ err: error, interface: name }, 'renewal failed');
          this.#o.settling.end(name, 4);
        },
      )
      .finally(() => {
        const again = this.#renewals.get(name) === 'again';
        this.#renewals.delete(name);
        if (again) this.#renew(name);
      });
  }

  #linkCounts(): LinkCounts {
    const attached = this.#o.boundary.attached();
    const links = this.#o.monitor.links().filter((link) => attached.includes(link.name));
    return Object.fromEntries(
      links.map(({ name, index, carrierChanges }) => [name, { index, carrierChanges }]),
    );
  }
}
