/* What a link is owed when its carrier or its addresses change, or when the machine was moved with
 * its links up: its addresses are verified, new ones are announced, and whoever waits is told when
 * the link has settled.
 *
 * On a link that is the one it was, its gateway or its DHCP server says so within a round trip, and
 * flows that were held meanwhile go on where they were: a false alarm costs that much.
 */

import type { Logger } from 'pino';
import type { Boundary } from '../../boundary/boundary.js';
import { attempt, every } from '../../libc/guard.js';
import type { Poller } from '../../libc/poller.js';
import { Announcer } from '../../link/announce.js';
import { askAnew, runRenewal } from '../../link/ask-anew.js';
import { Autoconfiguration, kernelAutoconfigures } from '../../link/autoconf.js';
import { gatewayOf } from '../../link/gateways.js';
import { findLeaseOwner } from '../../link/lease-owner.js';
import type { LinkChange, LinkMonitor } from '../../link/monitor.js';
import { ResumeWatch } from '../../link/resume.js';
import type { ResumeReason } from '../../link/resume-detector.js';
import type { Claim } from '../../link/verification.js';
import { Verifier } from '../../link/verifier.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { Clock } from '../../sync/clock.js';
import { type Address, family, isLinkLocal } from '../../wire/address.js';
import { MAC_BYTES, macFromBytes } from '../../wire/ethernet.js';
import type { Emit } from '../view/monitor-events.js';
import { LeaseCare, REMEMBER_MS } from './lease-care.js';
import type { Happening } from './lease-policy.js';
import { type LinkCounts, LinkMemory } from './link-memory.js';
import type { Settling } from './settling.js';

export interface LinkCareOptions {
  boundary: Pick<Boundary, 'attached'>;
  netlink: Netlink;
  poller: Poller;
  monitor: Pick<LinkMonitor, 'links' | 'addresses' | 'catchUp'>;
  clock: Clock;
  settling: Settling;
  runDir: string;
  /** A command that has addresses renewed, instead of telling the system's DHCP client. */
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
  #leases: LeaseCare;
  #remembering: NodeJS.Timeout;

  constructor(o: LinkCareOptions) {
    this.#o = o;
    this.#autoconf = new Autoconfiguration(o.netlink, o.poller, (name) => o.settling.end(name, 6));
    this.#announcer = new Announcer(o.netlink);
    this.#memory = new LinkMemory(o.runDir, () => this.#linkCounts());
    this.#leases = this.#newLeaseCare();
    this.#remembering = every(REMEMBER_MS, () => this.#rememberGateways()).unref();
    this.#resume = new ResumeWatch(o.poller, (reason, name) => this.#resumed(reason, name));
  }

  /** To be called with each change that the monitor sees; only links with a boundary matter. */
  changed(change: LinkChange): void {
    if (change.type === 'address-added') this.#addressAdded(change.interface, change.address);
    if (change.type !== 'carrier') return;
    this.#resume.noticed(change.interface);
    this.#carrierChanged(change.interface, change.up, 'carrier');
  }

  /** A boundary has come to a link. */
  attached(): void {
    this.#memory.remember();
    attempt(() => this.#leases.remember(this.#o.boundary.attached()));
  }

  /** Does for a cable that was changed while no daemon ran what that one would have done. */
  catchUp(): void {
    const changed = this.#memory.changed();
    this.#replug('carrier', ({ name }) => changed.includes(name));
    this.#memory.remember();
  }

  close(): void {
    clearInterval(this.#remembering);
    this.#resume.close();
    this.#leases.close();
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
    this.#replug('resumed', ({ name }) =>
      only === undefined ? attached.includes(name) : name === only,
    );
  }

  #replug(happened: Happening, concerned: (link: { name: string }) => boolean): void {
    for (const link of this.#o.monitor.links()) {
      if (!link.carrier || !concerned(link)) continue;
      this.#carrierChanged(link.name, false, happened);
      this.#carrierChanged(link.name, true, happened);
    }
  }

  #addressAdded(name: string, address: Address): void {
    // A router's new prefix: those of before are dropped next, and until then seem to be good still.
    const isJudged = family(address) === 6 && kernelAutoconfigures(name);
    if (!isJudged) this.#o.settling.end(name, family(address));
    if (family(address) === 4) this.#leases.addressAdded(name, address);
    if (!this.#o.boundary.attached().includes(name)) return;
    try {
      this.#announcer.announce(name, address);
    } catch (error) {
      this.#o.log.warn({ err: error, interface: name, address }, 'not announced');
    }
  }

  /* The network behind the link may be another one when it comes back. */
  #carrierChanged(name: string, up: boolean, happened: Happening): void {
    if (!this.#o.boundary.attached().includes(name)) return;
    this.#memory.remember();
    this.#o.settling.begin(name);
    if (!up) {
      attempt(() => this.#autoconf.carrierDown(name));
      this.#leases.lost(name);
      return;
    }
    attempt(() => this.#autoconf.carrierUp(name));
    if (!kernelAutoconfigures(name)) this.#o.settling.end(name, 6);
    attempt(() => this.#leases.changed(name, happened));
  }

  #newLeaseCare(): LeaseCare {
    const { netlink, poller, renew, clock, settling, emit, log } = this.#o;
    return new LeaseCare({
      ...{ clock, settling, emit, log },
      claim: (name) => this.#claim(name),
      gateway: (name, from) => gatewayOf(netlink, name, from),
      verify: (index, claim, onVerdict) =>
        new Verifier({ netlink, poller, index, claim, onVerdict }),
      owner: async (name) => (renew === undefined ? findLeaseOwner(name) : 'command'),
      ask: (owner, name) =>
        owner === 'command' ? runRenewal(renew ?? '', name) : askAnew(owner, name),
    });
  }

  /* Of several addresses of IPv4 the one with a lifetime is the lease; udhcpc gives none to its only
   * one.  Where the kernel itself hears routers, autoconf.ts judges them.
   */
  #claim(name: string): (Claim & { index: number }) | undefined {
    const link = this.#o.monitor.links().find((each) => each.name === name);
    if (!link?.ethernet || link.mac.length !== MAC_BYTES) return undefined;
    if (!this.#o.boundary.attached().includes(name)) return undefined;
    const own = this.#o.monitor
      .addresses()
      .filter((a) => a.interface === name && !a.tentative && !isLinkLocal(a.address));
    const own4 = own.filter((a) => family(a.address) === 4);
    const leased = own4.find((a) => a.dynamic) ?? own4[0];
    const own6 = own.filter((a) => family(a.address) === 6 && a.dynamic && !a.deprecated);
    return {
      index: link.index,
      mac: macFromBytes(link.mac),
      v4: leased && { ...leased, gateways: [] },
      v6: kernelAutoconfigures(name) ? [] : own6.map((a) => a.address),
    };
  }

  /* Not of a link of which the news has not reached us yet. */
  #rememberGateways(): void {
    this.#o.monitor.catchUp();
    this.#leases.remember(this.#o.boundary.attached());
  }

  #linkCounts(): LinkCounts {
    const attached = this.#o.boundary.attached();
    const links = this.#o.monitor.links().filter((link) => attached.includes(link.name));
    return Object.fromEntries(
      links.map(({ name, index, carrierChanges }) => [name, { index, carrierChanges }]),
    );
  }
}
