/*
 * Watches for signs that this machine was moved, restored or woken (resume-detector.ts says which)
 * and tells them as they come.
 *
 *   uevents ─────┐
 *   /dev/kmsg ───┼──► ResumeDetector ──► onResumed(reason, interface)
 *   rtnetlink ───┤
 *   clocks ──────┘
 *
 * Not for deciding what is to be done about it: that is the daemon's.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { type Clocks, readClocks } from '../libc/clocks.js';
import { SystemError } from '../libc/errno.js';
import { every } from '../libc/guard.js';
import type { Poller } from '../libc/poller.js';
import {
  AF_NETLINK,
  bindNetlink,
  closeFd,
  NETLINK_KOBJECT_UEVENT,
  NETLINK_ROUTE,
  openSocket,
  receive,
  SOCK_RAW,
} from '../libc/socket.js';
import { decodeMessages } from '../netlink/message.js';
import {
  BEAT_MS,
  isVmForkRecord,
  isVmForkUevent,
  notifiesPeers,
  ResumeDetector,
  type ResumeReason,
} from './resume-detector.js';
import { GROUP } from './rtnetlink.js';

/** Where the signs come from; tests have others. */
export interface ResumeSources {
  /** What the kernel logs, a record a read. */
  kernelLog: string;
  clocks: () => Clocks;
}

const SYSTEM: ResumeSources = { kernelLog: '/dev/kmsg', clocks: readClocks };

/* The kernel's own events, not what udev makes of them. */
const UEVENT_GROUP = 1;

const BUFFER_BYTES = 64 << 10;

export class ResumeWatch {
  #poller: Poller;
  #onResumed: (reason: ResumeReason, interfaceName?: string) => void;
  #clocks: () => Clocks;
  #detector = new ResumeDetector();
  #buffer = Buffer.alloc(BUFFER_BYTES);
  #sockets: number[] = [];
  #kernelLog: number | undefined;
  #beat: NodeJS.Timeout;

  /**
   * `onResumed`: told once for each move, with the interface if only that one is concerned.
   * A kernel log that may not be read is passed over.  Throws SystemError.
   */
  constructor(
    poller: Poller,
    onResumed: (reason: ResumeReason, interfaceName?: string) => void,
    sources: Partial<ResumeSources> = {},
  ) {
    const { kernelLog, clocks } = { ...SYSTEM, ...sources };
    this.#poller = poller;
    this.#onResumed = onResumed;
    this.#clocks = clocks;
    this.#listen(NETLINK_KOBJECT_UEVENT, UEVENT_GROUP, (bytes) => this.#uevent(bytes));
    this.#listen(NETLINK_ROUTE, GROUP.LINK, (bytes) => this.#linkMessage(bytes));
    this.#openKernelLog(kernelLog);
    this.#look();
    this.#beat = every(BEAT_MS, () => this.#look()).unref();
  }

  /** The carrier of an interface has told already: no news if its card announces itself now. */
  noticed(interfaceName: string): void {
    this.#detector.isNews(this.#clocks().monotonicMs, interfaceName);
  }

  close(): void {
    clearInterval(this.#beat);
    for (const socket of this.#sockets.splice(0)) {
      this.#poller.remove(socket);
      closeFd(socket);
    }
    this.#closeKernelLog();
  }

  #listen(protocol: number, groups: number, onMessage: (bytes: Uint8Array) => void): void {
    const socket = openSocket(AF_NETLINK, SOCK_RAW, protocol);
    this.#sockets.push(socket);
    bindNetlink(socket, groups);
    this.#poller.add(socket, () => this.#drain(socket, onMessage));
  }

  #drain(socket: number, onMessage: (bytes: Uint8Array) => void): void {
    for (;;) {
      try {
        const length = receive(socket, this.#buffer);
        if (length < 0) return;
        onMessage(this.#buffer.subarray(0, length));
      } catch (error) {
        // Overrun: what is lost was most likely no sign, and there are several of each move.
        if (!(error instanceof SystemError) || error.code !== 'ENOBUFS') throw error;
      }
    }
  }

  #uevent(bytes: Uint8Array): void {
    if (isVmForkUevent(bytes)) this.#tell('vmgenid');
  }

  #linkMessage(bytes: Uint8Array): void {
    const messages = decodeMessages(bytes);
    if ('error' in messages) return;
    for (const message of messages) {
      const name = notifiesPeers(message);
      if (name !== undefined) this.#tell('notify-peers', name);
    }
  }

  #tell(reason: ResumeReason, interfaceName?: string): void {
    const isNews = this.#detector.isNews(this.#clocks().monotonicMs, interfaceName);
    if (isNews) this.#onResumed(reason, interfaceName);
  }

  #look(): void {
    const reason = this.#detector.beat(this.#clocks());
    if (reason !== undefined) this.#onResumed(reason);
  }

  /* What was logged before we came is not about us: read it away. */
  #openKernelLog(path: string): void {
    try {
      this.#kernelLog = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch {
      return; // A container: its host sees what there is to see.
    }
    while (this.#readRecord() !== undefined);
    if (this.#kernelLog === undefined) return;
    this.#poller.add(this.#kernelLog, () => this.#readKernelLog());
  }

  #readKernelLog(): void {
    for (let record = this.#readRecord(); record !== undefined; record = this.#readRecord()) {
      if (isVmForkRecord(record)) this.#tell('vmgenid');
    }
  }

  /** The next record, '' for those that were overwritten before we read them; undefined: none. */
  #readRecord(): string | undefined {
    if (this.#kernelLog === undefined) return undefined;
    try {
      const length = readSync(this.#kernelLog, this.#buffer);
      if (length > 0) return this.#buffer.toString('utf8', 0, length);
      this.#closeKernelLog();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EPIPE') return '';
      if (code !== 'EAGAIN') this.#closeKernelLog();
    }
    return undefined;
  }

  #closeKernelLog(): void {
    if (this.#kernelLog === undefined) return;
    this.#poller.remove(this.#kernelLog);
    closeSync(this.#kernelLog);
    this.#kernelLog = undefined;
  }
}
