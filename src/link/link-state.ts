/*
 * The links and addresses of a network namespace, and what a notification changes about them.
 *
 * Pure: messages in, changes out.
 */

import type { NetlinkMessage } from '../netlink/message.js';
import type { Address } from '../wire/address.js';
import { RETAINED_PEER, RETAINED_PROTOCOL } from './retained.js';
import {
  type AddressRecord,
  decodeAddress,
  decodeLink,
  decodeRoute,
  decodeRule,
  type LinkRecord,
  PROTOCOL,
  ROUTE_TYPE,
  type RouteRecord,
  RTM,
  type RuleRecord,
  SCOPE,
  TABLE,
} from './rtnetlink.js';

export type LinkChange =
  | { type: 'carrier'; interface: string; up: boolean }
  /** A new one, or one under a new name or as another's port; what is on it is told after that. */
  | { type: 'link-added'; interface: string; index: number }
  /** It is there no more, whether it was connected or not. */
  | { type: 'link-removed'; interface: string; index: number }
  /** Usable from now on: an IPv6 address only after duplicate address detection. */
  | { type: 'address-added'; interface: string; address: Address; prefixLength: number }
  | { type: 'address-removed'; interface: string; address: Address }
  /** A qdisc or a filter has come or gone. */
  | { type: 'hook-changed'; index: number }
  /** One or more routes; whoever cares looks them up.  `local`: of those to this machine, too. */
  | { type: 'route-changed'; local?: true }
  /** Rules, routes or addresses that bear our mark, by whomever; whoever cares looks. */
  | { type: 'ours-removed' };

/** What is known of links and addresses. */
export class LinkState {
  #links = new Map<number, LinkRecord>();
  /** By interface, address and prefix length: the kernel allows one address in two prefixes. */
  #addresses = new Map<string, AddressRecord>();
  #routesChanged: 'no' | 'yes' | 'local' = 'no';
  #oursRemoved = false;

  links(): LinkRecord[] {
    return [...this.#links.values()];
  }

  addresses() {
    return [...this.#addresses.values()].flatMap((a) => {
      const link = this.#links.get(a.index);
      if (link === undefined) return [];
      const { address, prefixLength, deprecated, tentative, dynamic } = a;
      return [{ address, prefixLength, interface: link.name, deprecated, tentative, dynamic }];
    });
  }

  /** To be called if notifications may have been lost. */
  anyChanged(): void {
    this.#routesChanged = 'local';
    this.#oursRemoved = true;
  }

  /** What has changed of routes, and of what is ours, since the last call. */
  takeChanges(): LinkChange[] {
    const [routes, ours] = [this.#routesChanged, this.#oursRemoved];
    this.#routesChanged = 'no';
    this.#oursRemoved = false;
    const local = routes === 'local' ? { local: true as const } : {};
    return [
      ...(routes === 'no' ? [] : [{ type: 'route-changed', ...local } as const]),
      ...(ours ? [{ type: 'ours-removed' } as const] : []),
    ];
  }

  /** Takes in one notification; what it changed, in order. */
  apply(m: NetlinkMessage): LinkChange[] {
    switch (m.type) {
      case RTM.NEWLINK:
        return this.#setLink(decodeLink(m));
      case RTM.DELLINK:
        return this.#removeLink(decodeLink(m));
      case RTM.NEWADDR:
        return this.#setAddress(decodeAddress(m));
      case RTM.DELADDR:
        return this.#removeAddress(decodeAddress(m));
      case RTM.NEWROUTE:
      case RTM.DELROUTE:
        this.#noteRoute(m.type, decodeRoute(m));
        return [];
      case RTM.NEWRULE:
      case RTM.DELRULE:
        this.#noteRule(m.type, decodeRule(m));
        return [];
      case RTM.NEWQDISC:
      case RTM.DELQDISC:
      case RTM.NEWTFILTER:
      case RTM.DELTFILTER:
        return hookChange(m);
      default:
        return [];
    }
  }

  #noteRoute(type: number, route: RouteRecord | undefined): void {
    if (route?.protocol === RETAINED_PROTOCOL) this.#oursRemoved ||= type === RTM.DELROUTE;
    if (route === undefined || !matters(route)) return;
    if (route.type === ROUTE_TYPE.LOCAL) this.#routesChanged = 'local';
    else if (this.#routesChanged === 'no') this.#routesChanged = 'yes';
  }

  /* A rule of others may lead everything elsewhere, as a route does. */
  #noteRule(type: number, rule: RuleRecord | undefined): void {
    if (rule?.protocol === RETAINED_PROTOCOL) this.#oursRemoved ||= type === RTM.DELRULE;
    else if (this.#routesChanged === 'no') this.#routesChanged = 'yes';
  }

  /** Takes in complete dumps of links and addresses; what is different from before. */
  replace(links: NetlinkMessage[], addresses: NetlinkMessage[]): LinkChange[] {
    const changes: LinkChange[] = [];
    const tell = (more: LinkChange[]) => {
      for (const change of more) changes.push(change);
    };
    const linksNow = links.flatMap((m) => decodeLink(m) ?? []);
    const addressesNow = addresses.flatMap((m) => decodeAddress(m) ?? []).filter(isReal);
    const keys = new Set(addressesNow.map(addressKey));
    for (const [key, gone] of this.#addresses) {
      if (!keys.has(key)) tell(this.#removeAddress(gone));
    }
    const indices = new Set(linksNow.map((link) => link.index));
    for (const [index, gone] of this.#links) {
      if (!indices.has(index)) tell(this.#removeLink(gone));
    }
    for (const link of linksNow) tell(this.#setLink(link));
    for (const a of addressesNow) tell(this.#setAddress(a));
    return changes;
  }

  #setLink(link: LinkRecord | undefined): LinkChange[] {
    if (link === undefined) return [];
    const before = this.#links.get(link.index);
    this.#links.set(link.index, link);
    const isSame = before?.name === link.name && before.master === link.master;
    const added: LinkChange[] = isSame
      ? []
      : [{ type: 'link-added', interface: link.name, index: link.index }];
    const had = before?.carrier ?? false;
    if (had !== link.carrier) {
      return [...added, { type: 'carrier', interface: link.name, up: link.carrier }];
    }
    // Gone and back between two messages: the cable may be in another socket now.
    const flapped = before !== undefined && before.carrierChanges !== link.carrierChanges;
    if (!link.carrier || !flapped) return added;
    const change = { type: 'carrier', interface: link.name } as const;
    return [...added, { ...change, up: false }, { ...change, up: true }];
  }

  #removeLink(link: LinkRecord | undefined): LinkChange[] {
    const before = link && this.#links.get(link.index);
    if (before === undefined) return [];
    this.#links.delete(before.index);
    const { name, index } = before;
    const removed = { type: 'link-removed', interface: name, index } as const;
    if (!before.carrier) return [removed];
    return [{ type: 'carrier', interface: before.name, up: false }, removed];
  }

  #setAddress(a: AddressRecord | undefined): LinkChange[] {
    if (a === undefined || !isReal(a)) return [];
    const before = this.#addresses.get(addressKey(a));
    this.#addresses.set(addressKey(a), a);
    const usable = before !== undefined && !before.tentative;
    // Duplicate address detection may start over when the link comes back.
    if (a.tentative) return usable ? this.#lost(a) : [];
    if (usable) return [];
    const { address, prefixLength } = a;
    return [{ type: 'address-added', interface: this.#name(a.index), address, prefixLength }];
  }

  #removeAddress(a: AddressRecord | undefined): LinkChange[] {
    this.#oursRemoved ||= a?.peer === RETAINED_PEER.address;
    const before = a && this.#addresses.get(addressKey(a));
    if (before === undefined) return [];
    this.#addresses.delete(addressKey(before));
    return before.tentative ? [] : this.#lost(before);
  }

  /** Unless the interface has the same address in another prefix. */
  #lost(a: AddressRecord): LinkChange[] {
    const sameAddress = (other: AddressRecord) =>
      other.index === a.index && other.address === a.address && !other.tentative;
    if ([...this.#addresses.values()].some(sameAddress)) return [];
    return [{ type: 'address-removed', interface: this.#name(a.index), address: a.address }];
  }

  #name(index: number): string {
    return this.#links.get(index)?.name ?? `#${index}`;
  }
}

/* struct tcmsg: the index behind a family and padding. */
function hookChange({ payload }: NetlinkMessage): LinkChange[] {
  if (payload.length < 8) return [];
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return [{ type: 'hook-changed', index: view.getInt32(4, true) }];
}

const addressKey = (a: AddressRecord): string => `${a.index} ${a.address}/${a.prefixLength}`;

/* Host scope: loopback addresses, and the retained ones, which are no place to move to. */
const isReal = (a: AddressRecord): boolean => a.scope !== SCOPE.HOST;

/* Not: what the kernel keeps for addresses, cached exceptions (path MTU), our own table. */
const matters = ({ cloned, table, protocol, type }: RouteRecord): boolean =>
  !cloned &&
  protocol !== RETAINED_PROTOCOL &&
  (protocol !== PROTOCOL.KERNEL || (type === ROUTE_TYPE.UNICAST && table !== TABLE.LOCAL));
