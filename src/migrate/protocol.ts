/* What the source asks of the destination, in this order, over a channel:
 *
 *   check     can this VM come?                      nothing is changed
 *   place     taps, and an address for the guest
 *   receive   a QEMU that waits for the memory
 *   export    disks, for the source's mirrors        only if they are copied
 *   import, synchronize                              flows, in hypervisor placement
 *   loaded    returns when the VM is complete there, and paused
 *   go        it runs: the commit
 *   announce
 *   done      the destination forgets the migration
 *
 *   discard   at any time before `go`: everything that the above has made is gone
 *   recover   in a new channel, after the first one was lost: what has become of it (two-phase.ts)
 *
 * A destination that loses the channel before `go` discards by itself, and remembers that the VM
 * never ran there; after `go` it goes on by itself.
 */

import { z } from 'zod';
import { parseGuestState } from '../daemon/api/client.js';
import type { Word } from './two-phase.js';

export const checkBody = z.object({
  id: z.string().regex(/^[\w-]{1,80}$/),
  name: z.string().min(1),
  program: z.string(),
  argv: z.array(z.string()),
  machine: z.string(),
  qmp: z.string(),
  placement: z.enum(['hypervisor', 'guest']),
  taps: z.array(
    z.object({
      at: z.int(),
      name: z.string(),
      netdev: z.string().optional(),
      bridge: z.string().optional(),
      mtu: z.int().optional(),
      /** Only those that have a boundary. */
      mac: z.string().optional(),
      isProtected: z.boolean(),
    }),
  ),
  bridge: z.string().optional(),
  storage: z.enum(['shared', 'copy']),
  storageDir: z.string().optional(),
  disks: z.array(
    z.object({
      device: z.string(),
      path: z.string(),
      format: z.string(),
      bytes: z.number(),
      allocated: z.number(),
    }),
  ),
  direct: z.boolean(),
  /** Paths of character devices that its QEMU has open. */
  devices: z.array(z.string()).default([]),
  /** Of the flows of its daemon, in hypervisor placement. */
  luggage: z
    .object({ version: z.int(), lowest: z.int(), flow_bytes: z.int(), plain_bytes: z.int() })
    .optional(),
});
export type CheckBody = z.infer<typeof checkBody>;

export interface CheckAnswer {
  host: string;
  qemu: string;
  /** Why it cannot come; empty: it can. */
  problems: string[];
  /** Where copied disks will be, by device. */
  targets: Record<string, string>;
}

export const placeBody = z.object({
  request: z.array(z.string()),
  /** By the tap's name at the source. */
  guests: z.record(z.string(), z.unknown().transform(parseGuestState)),
});

export interface PlaceAnswer {
  /** Name here by name at the source. */
  taps: Record<string, string>;
  outside: string[];
}

/** A port: QEMU itself listens there, on all addresses. */
export interface Listening {
  port?: number;
}

export interface ReceiveAnswer extends Listening {
  qmp: string;
}

export interface ExportAnswer extends Listening {
  /** Name of the export by device. */
  exports: Record<string, string>;
}

export const importBody = z.object({
  flows: z.record(z.string(), z.object({ outside: z.array(z.string()), flows: z.string() })),
});

export const synchronizeBody = z.object({ within_ms: z.number() });

export const recoverBody = z.object({ id: z.string() });

export interface WordAnswer {
  word: Word;
  /** Its QEMU is a process that lives: what is unknown now may be known later. */
  alive: boolean;
  /** What QEMU has said, if it refused. */
  why?: string;
}
