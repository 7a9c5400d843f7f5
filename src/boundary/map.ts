/*
 * BPF maps by descriptor: one element, or all of them.
 *
 * Keys and values are bytes; src/boundary/abi.gen.ts tells what is in them.
 */
import { ERRNO } from '../libc/errno.js';
import { closeFd } from '../libc/socket.js';
import { clearLog, infoByFd, libbpfError, lookup, lookupBatch, remove, update } from './libbpf.js';

/** How many entries one system call reads: about 1 MB of flows. */
const BATCH_ENTRIES = 4096;
const INFO_SIZE = 80;

export const BPF_ANY = 0;
export const BPF_NOEXIST = 1;
export const BPF_EXIST = 2;

/** Room for the entries that one system call reads. */
interface Batch {
  keys: Uint8Array;
  values: Uint8Array;
}

/** One map; `name` is for messages. */
export class BpfMap {
  readonly fd: number;
  readonly name: string;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  #batch: Batch | undefined;

  constructor(fd: number, name: string) {
    const info = Buffer.alloc(INFO_SIZE);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(INFO_SIZE);
    const error = infoByFd(fd, info, length);
    if (error !== 0) throw libbpfError(`read about map ${name}`, error);
    this.fd = fd;
    this.name = name;
    this.keySize = info.readUInt32LE(8);
    this.valueSize = info.readUInt32LE(12);
    this.maxEntries = info.readUInt32LE(16);
  }

  /** The value under `key`, or undefined.  `length`: for per-CPU maps. */
  get(key: Uint8Array, length = this.valueSize): DataView | undefined {
    const value = new Uint8Array(length);
    const error = lookup(this.fd, key, value);
    if (error === 0) return new DataView(value.buffer);
    if (error === -ERRNO.ENOENT) return undefined;
    throw libbpfError(`look up in map ${this.name}`, error);
  }

  /** Writes a value.  Whether it was stored: false if the map is full or `flags` forbade it. */
  set(key: Uint8Array, value: Uint8Array, flags = BPF_ANY): boolean {
    return this.#stored(update(this.fd, key, value, flags));
  }

  /** Appends to a queue.  Whether there was room. */
  push(value: Uint8Array): boolean {
    return this.#stored(update(this.fd, null, value, BPF_ANY));
  }

  /** Whether there was something to delete. */
  delete(key: Uint8Array): boolean {
    const error = remove(this.fd, key);
    if (error === 0) return true;
    if (error === -ERRNO.ENOENT) return false;
    throw libbpfError(`delete from map ${this.name}`, error);
  }

  /** Calls back with every entry of a hash map; the views are valid during the call only. */
  forEach(onEntry: (keys: DataView, keyAt: number, values: DataView, valueAt: number) => void) {
    const next = new Uint8Array(Math.max(4, this.keySize));
    // Kept from one reading to the next: making a megabyte costs more than reading an empty map.
    let batch = this.#batch ?? this.#newBatch(BATCH_ENTRIES);
    this.#batch = undefined;
    for (let from: Uint8Array | null = null, entries = batch.keys.length / this.keySize; ; ) {
      const { keys, values } = batch;
      const count = new Uint32Array([entries]);
      const counter = new Uint8Array(count.buffer);
      const error = lookupBatch(this.fd, from, next, keys, values, counter, null);
      // One bucket holds more than we asked for: ask for more, from the same place.
      if (error === -ERRNO.ENOSPC) {
        entries *= 2;
        batch = this.#newBatch(entries);
        continue;
      }
      if (error !== 0 && error !== -ERRNO.ENOENT) throw libbpfError(`read map ${this.name}`, error);
      const [keyView, valueView] = [new DataView(keys.buffer), new DataView(values.buffer)];
      for (let i = 0; i < (count[0] ?? 0); i++) {
        onEntry(keyView, i * this.keySize, valueView, i * this.valueSize);
      }
      if (error === -ERRNO.ENOENT) break;
      from = next.slice();
    }
    this.#batch = batch;
  }

  #newBatch(entries: number): Batch {
    return {
      keys: new Uint8Array(entries * this.keySize),
      values: new Uint8Array(entries * this.valueSize),
    };
  }

  close(): void {
    closeFd(this.fd);
  }

  #stored(error: number): boolean {
    if (error === 0) return true;
    if (error === -ERRNO.E2BIG || error === -ERRNO.EEXIST || error === -ERRNO.ENOENT) return false;
    if (error === -ERRNO.ENOSPC) return false;
    clearLog();
    throw libbpfError(`write map ${this.name}`, error);
  }
}
