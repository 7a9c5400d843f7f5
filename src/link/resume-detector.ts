/*
 * Whether this machine has just been moved, restored or woken, told by what changes inside of it
 * although no carrier did: a hypervisor that moves a VM leaves its link up.
 *
 *   sign                                                            who gives it
 *   vmgenid      uevent NEW_VMGENID=1, on older kernels (since      QEMU -device vmgenid, Hyper-V,
 *                5.18) only the line that they log                  VMware: restored, cloned
 *   notify-peers RTM_NEWLINK that says IFLA_EVENT_NOTIFY_PEERS      virtio-net, Xen, Hyper-V: after a
 *                                                                   live migration
 *   suspended    CLOCK_BOOTTIME has run ahead of CLOCK_MONOTONIC    sleep, hibernation
 *   clock-jump   CLOCK_REALTIME has stepped against both            who sets a guest's time after it
 *                                                                   was stopped
 *   stalled      our own timer fires far too late                   stopped while the clock went on
 *
 * A live migration by QEMU 7.2 of a guest with Linux 6.1 gives notify-peers, five times; vmgenid
 * only if the new QEMU was given another identifier, and Debian's cloud kernel does not know it.
 *
 * Pure: samples and messages in, reasons out.  A false alarm only makes the daemon look again at
 * what it has: that is why uncertain signs count.
 */
import type { Clocks } from '../libc/clocks.js';
import {
  attributeNumber,
  attributeText,
  decodeAttributes,
  type NetlinkMessage,
} from '../netlink/message.js';
import { RTM } from './rtnetlink.js';

export type ResumeReason = 'vmgenid' | 'notify-peers' | 'suspended' | 'clock-jump' | 'stalled';

/** How often the clocks are to be looked at. */
export const BEAT_MS = 500;

/* Both clocks are read within microseconds, and only a suspend parts them. */
const SUSPENDED_MIN_MS = 100;

/* NTP slews below 0.5 s; a step of seconds is rare on a machine that was there all the time. */
const JUMP_MIN_MS = 2_000;

/* Beyond what a busy machine or a large flow table makes a timer late. */
const STALLED_MIN_MS = 5_000;

/* One move gives several signs, each on a way of its own, and QEMU has a card announce itself five
 * times within 0.8 s (migration parameters announce-initial, -rounds, -step).
 */
const SAME_MOVE_MS = 1_500;

const WHOLE_MACHINE = '';

export class ResumeDetector {
  #before: Clocks | undefined;
  /** By interface; only what is still the same move. */
  #alarmAt = new Map<string, number>();

  /** To be called every BEAT_MS; what has happened since the last call. */
  beat(now: Clocks): ResumeReason | undefined {
    const before = this.#before;
    this.#before = now;
    const reason = before && verdict(before, now);
    return reason !== undefined && this.isNews(now.monotonicMs) ? reason : undefined;
  }

  /** How many signs are remembered. */
  get remembered(): number {
    return this.#alarmAt.size;
  }

  /** Whether a sign that came at `atMs` is not of a move that is known already. */
  isNews(atMs: number, interfaceName = WHOLE_MACHINE): boolean {
    const known = [WHOLE_MACHINE, interfaceName].some((name) => {
      const alarmAt = this.#alarmAt.get(name);
      return alarmAt !== undefined && atMs - alarmAt < SAME_MOVE_MS;
    });
    if (known) return false;
    for (const [name, alarmAt] of this.#alarmAt) {
      if (atMs - alarmAt >= SAME_MOVE_MS) this.#alarmAt.delete(name);
    }
    this.#alarmAt.set(interfaceName, atMs);
    return true;
  }
}

function verdict(before: Clocks, now: Clocks): ResumeReason | undefined {
  const monotonic = now.monotonicMs - before.monotonicMs;
  const slept = now.boottimeMs - before.boottimeMs - monotonic;
  if (slept > SUSPENDED_MIN_MS) return 'suspended';
  if (monotonic > BEAT_MS + STALLED_MIN_MS) return 'stalled';
  const stepped = now.realtimeMs - before.realtimeMs - monotonic;
  return Math.abs(stepped) > JUMP_MIN_MS ? 'clock-jump' : undefined;
}

/** A message of the kobject uevent socket: "change@/devices/...", then NAME=VALUE, each 0-ended. */
export function isVmForkUevent(message: Uint8Array): boolean {
  return Buffer.from(message).toString('latin1').split('\0').includes('NEW_VMGENID=1');
}

/**
 * A record of /dev/kmsg, "PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT\n".  Only the kernel writes
 * records of facility 0, priorities 0 to 7: what a program writes there is put under another.
 */
export function isVmForkRecord(record: string): boolean {
  return /^[0-7],[^;]*;random: crng reseeded due to virtual machine fork$/m.test(record);
}

const IFLA_IFNAME = 3;
const IFLA_EVENT = 44;
const IFLA_EVENT_NOTIFY_PEERS = 4;
const IFINFOMSG_BYTES = 16;

/** The interface that has told the neighbours that it is elsewhere now; undefined: none has. */
export function notifiesPeers({ type, payload }: NetlinkMessage): string | undefined {
  if (type !== RTM.NEWLINK || payload.length < IFINFOMSG_BYTES) return undefined;
  const attributes = decodeAttributes(payload.subarray(IFINFOMSG_BYTES));
  if (attributeNumber(attributes?.get(IFLA_EVENT)) !== IFLA_EVENT_NOTIFY_PEERS) return undefined;
  const name = attributes?.get(IFLA_IFNAME);
  return name && attributeText(name);
}
