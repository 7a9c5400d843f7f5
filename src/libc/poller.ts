/*
 * Waits for file descriptors that Node does not know: netlink, raw and packet sockets, the
 * ring buffer of the data plane.
 *
 * They join libuv's own epoll through koffi.node.poll: no thread, no wake-up of our own.
 * Rejected: epoll_wait in koffi.async, which takes one of libuv's four threads for good and
 * keeps a process from exiting until an eventfd has ended the wait.
 *
 * A poller does not keep the process alive: whoever needs that has a server or a timer.
 */
import koffi from 'koffi';
import { soon } from './guard.js';

interface PollHandle {
  start(options: { readable: boolean }, callback: (status: number) => void): void;
  close(): void;
  unref(): void;
}

/* Its declaration leaves out that the callback's first argument is libuv's status. */
const poll = koffi.node.poll as unknown as (
  fd: number,
  options: { readable: boolean },
  callback: (status: number) => void,
) => PollHandle;

interface Watch {
  handle: PollHandle;
  onReadable: () => void;
  scheduled: boolean;
}

const READABLE = { readable: true };

/* koffi 3.3.4 stops a poll whose handle object is garbage collected: hold on to each. */
const watches = new Set<Watch>();

/** Calls back when a descriptor is readable or in error, again and again until it is drained. */
export class Poller {
  #byFd = new Map<number, Watch>();

  /** Watches `fd`, which becomes non-blocking.  Throws if it is watched already. */
  add(fd: number, onReadable: () => void): void {
    if (this.#byFd.has(fd)) throw new Error(`descriptor ${fd} is watched already`);
    const watch: Watch = {
      handle: poll(
        fd,
        READABLE,
        readiness(() => watch),
      ),
      onReadable,
      scheduled: false,
    };
    watch.handle.unref();
    watches.add(watch);
    this.#byFd.set(fd, watch);
  }

  /** Stops watching `fd`; to be called before it is closed.  No-op if it is not watched. */
  remove(fd: number): void {
    const watch = this.#byFd.get(fd);
    if (watch === undefined) return;
    this.#byFd.delete(fd);
    watches.delete(watch);
    watch.handle.close();
  }

  /** Stops watching everything.  The descriptors stay open. */
  close(): void {
    for (const fd of [...this.#byFd.keys()]) this.remove(fd);
  }
}

/* koffi calls back outside of Node's callback scope: a promise resolved there would wait for
 * the next unrelated event, and an exception would be lost.  setImmediate gives a proper
 * scope within the same turn of the loop, and before the next poll.
 */
function readiness(self: () => Watch): (status: number) => void {
  return (status) => {
    const watch = self();
    if (watch.scheduled) return;
    watch.scheduled = true;
    soon(() => {
      watch.scheduled = false;
      if (!watches.has(watch)) return;
      try {
        watch.onReadable();
      } finally {
        // libuv stops a poll on EPOLLERR, which netlink uses to tell of an overrun: go on.
        if (status < 0 && watches.has(watch)) watch.handle.start(READABLE, readiness(self));
      }
    });
  };
}
