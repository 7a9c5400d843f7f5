/*
 * Neighbours whose hardware address has been asked for and not been told.
 *
 * Packets wait for it, and a segment that waits is not sent by another way: TCP leaves it alone
 * until neighbour discovery has failed, 3 s later (test/kernel/neighbour-queue.test.ts).  After
 * a move the gateway of the old link is such a neighbour.  Not for resolved ones: a stale
 * address there is found out by the kernel itself.
 */
import { SystemError } from '../libc/errno.js';
import type { Netlink } from '../netlink/netlink.js';
import type { Address } from '../wire/address.js';
import { decodeNeighbour } from './rtnetlink.js';
import { getNeighbours, removeNeighbour } from './rtnetlink-request.js';

/**
 * Forgets those that have been asked for `minimumMs` and longer, and with them the packets that
 * wait; the kernel asks anew for what is still in use.  `only`: none but this one.  How many they
 * were.  Throws SystemError.
 */
export function forgetUnresolved(netlink: Netlink, minimumMs = 0, only?: Address): number {
  const unresolved = netlink
    .request(getNeighbours(), 'list the neighbours')
    .flatMap((message) => decodeNeighbour(message) ?? [])
    .filter(({ unresolvedMs }) => unresolvedMs !== undefined && unresolvedMs >= minimumMs)
    .filter(({ address }) => only === undefined || address === only);
  for (const { address, index } of unresolved) {
    try {
      netlink.request(removeNeighbour(address, index), `forget the neighbour ${address}`);
    } catch (error) {
      // It has answered, or has been given up, meanwhile.
      if (!(error instanceof SystemError) || error.code !== 'ENOENT') throw error;
    }
  }
  return unresolved.length;
}

/** Whether a neighbour on this interface has been asked for and has not answered yet. */
export const isUnresolved = (netlink: Netlink, neighbour: Address, index: number): boolean =>
  netlink
    .request(getNeighbours(), 'list the neighbours')
    .flatMap((message) => decodeNeighbour(message) ?? [])
    .some((n) => n.index === index && n.address === neighbour && n.unresolvedMs !== undefined);
