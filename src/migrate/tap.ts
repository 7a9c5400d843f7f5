/* Taps that live exactly as long as somebody holds them: this process, and the QEMU that inherits
 * the descriptor.  drivers/net/tun.c; Documentation/networking/tuntap.rst.
 */

import koffi from 'koffi';
import { z } from 'zod';
import { run } from '../libc/command.js';
import { checked } from '../libc/errno.js';
import { closeFd, interfaceIndex } from '../libc/socket.js';
import { bootId } from './process-mark.js';

const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const TUNSETIFF = 0x400454ca;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
/* virtio-net then hands over checksums and segmentation; QEMU reads it back from the descriptor. */
const IFF_VNET_HDR = 0x4000;
const IFREQ_SIZE = 40;
const IFNAMSIZ = 16;
const DEFAULT_MTU = 1500;

const libc = koffi.load('libc.so.6');
const cOpen = libc.func('int open(const char *path, int flags)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');

export interface OwnTap {
  name: string;
  fd: number;
}

/** A tap named so that a later one of the same name is not taken for it. */
export const tapMark = z.object({ name: z.string(), index: z.int(), boot: z.string() });
export type TapMark = z.infer<typeof tapMark>;

export function tapMarkOf(name: string): TapMark {
  return { name, index: interfaceIndex(name) ?? 0, boot: bootId };
}

/** Names of those that are still the same, or gone: nobody else's. */
export function stillTheirs(taps: readonly TapMark[]): string[] {
  const isTheirs = ({ name, index, boot }: TapMark) => {
    const now = interfaceIndex(name);
    return now === undefined || (now === index && boot === bootId);
  };
  return taps.filter(isTheirs).map(({ name }) => name);
}

interface LinkRecord {
  ifname: string;
  mtu?: number;
  master?: string;
  linkinfo?: { info_kind?: string };
}

/** The bridge asked for cannot be used; the message says what to do. */
export class BridgeError extends Error {
  override readonly name = 'BridgeError';
}

/**
 * A new tap, up and in the bridge: `wanted` is its name unless that is taken.  `mtu`: at least; a smaller
 * one would make the bridge's own smaller.  SystemError.
 */
export async function makeTap(wanted: string, bridge: string, mtu = 0): Promise<OwnTap> {
  const free = interfaceIndex(wanted) === undefined;
  const stem = wanted.replace(/\d+$/, '').slice(0, IFNAMSIZ - 5);
  const tap = openTap(free ? wanted : `${stem}%d`);
  try {
    const { name } = tap;
    // Its IPv6 address would be the hypervisor's, on the guest's cable.
    const link = ['ip', 'link', 'set', 'dev', name] as const;
    await run(`prepare tap ${name}`, [...link, 'addrgenmode', 'none']);
    if (mtu > DEFAULT_MTU) await run(`set MTU of ${name}`, [...link, 'mtu', String(mtu)]);
    await run(`put tap ${name} into bridge ${bridge}`, [...link, 'master', bridge, 'up']);
    return tap;
  } catch (error) {
    closeFd(tap.fd);
    throw error;
  }
}

function openTap(pattern: string): OwnTap {
  const fd: number = cOpen('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  checked(fd, 'open /dev/net/tun');
  const request = Buffer.alloc(IFREQ_SIZE);
  request.write(pattern.slice(0, IFNAMSIZ - 1));
  request.writeUInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, IFNAMSIZ);
  const result: number = cIoctl(fd, TUNSETIFF, request);
  try {
    checked(result, `create tap ${pattern}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return { fd, name: request.toString('latin1', 0, request.indexOf(0)) };
}

/** The bridge that an interface is in, and its MTU. */
export async function linkOf(name: string): Promise<Pick<LinkRecord, 'master' | 'mtu'>> {
  return (await links(['dev', name]))[0] ?? {};
}

/** `asked`, else the one of the same name as at the source, else the only one. */
export async function chooseBridge(asked: string | undefined, there: string | undefined) {
  const bridges = (await links(['type', 'bridge'])).map(({ ifname }) => ifname);
  const list = bridges.length === 0 ? 'there is none' : `there are ${bridges.join(', ')}`;
  if (asked !== undefined) {
    if (bridges.includes(asked)) return asked;
    throw new BridgeError(`no bridge ${asked} (${list})`);
  }
  if (there !== undefined && bridges.includes(there)) return there;
  if (bridges.length === 1) return String(bridges[0]);
  throw new BridgeError(`which bridge is the VM's? (${list}) say --bridge NAME`);
}

/** Removes a tap that outlives its QEMU, because somebody made it persistent. */
export async function removeTap(name: string): Promise<void> {
  const isThere = () => interfaceIndex(name) !== undefined;
  if (!isThere()) return;
  try {
    const [link] = await links(['dev', name]);
    if (link?.linkinfo?.info_kind !== 'tun') return;
    await run(`remove tap ${name}`, ['ip', 'link', 'del', 'dev', name]);
  } catch (error) {
    // Of a QEMU that has just ended, it goes by itself at any moment.
    if (isThere()) throw error;
  }
}

async function links(which: string[]): Promise<LinkRecord[]> {
  const text = await run('list interfaces', ['ip', '-json', '-details', 'link', 'show', ...which]);
  // "{}" stands for each interface that does not match.
  const list = JSON.parse(text === '' ? '[]' : text) as Partial<LinkRecord>[];
  return list.filter((link): link is LinkRecord => link.ifname !== undefined);
}
