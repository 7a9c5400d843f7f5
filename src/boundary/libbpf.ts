/*
 * libbpf 1.1, as far as the boundary needs it: one declaration per C function, and the few
 * option structs laid out by hand.
 *
 * Not for decisions: what is loaded, attached or read is decided by the other files here.
 * <bpf/bpf.h>, <bpf/libbpf.h>.  libbpf returns a negative errno, or NULL and sets errno.
 */
import { constants } from 'node:os';
import koffi from 'koffi';
import { SystemError } from '../libc/errno.js';

/** An object of libbpf: an address. */
export type Pointer = bigint;

const LOG_LINES_MAX = 200;
const LOG_BYTES_MAX = 1 << 20;

const libbpf = loadLibrary();
const libc = koffi.load('libc.so.6');
const PrintFunction = koffi.proto('int TiflowPrint(int level, void *format, void *arguments)');
const vsnprintf = libc.func('int vsnprintf(void *, size_t, void *format, void *arguments)');
const setPrint = libbpf.func('libbpf_set_print', 'void *', [koffi.pointer(PrintFunction)]);

export const objectOpen: (path: string, options: null) => Pointer | null = libbpf.func(
  'void *bpf_object__open_file(const char *path, void *options)',
);
export const objectLoad: (object: Pointer) => number = libbpf.func(
  'int bpf_object__load(void *object)',
);
export const objectClose: (object: Pointer) => void = libbpf.func(
  'void bpf_object__close(void *object)',
);
export const objectMap: (object: Pointer, name: string) => Pointer | null = libbpf.func(
  'void *bpf_object__find_map_by_name(void *object, const char *name)',
);
export const objectProgram: (object: Pointer, name: string) => Pointer | null = libbpf.func(
  'void *bpf_object__find_program_by_name(void *object, const char *name)',
);
export const mapSetMaxEntries: (map: Pointer, entries: number) => number = libbpf.func(
  'int bpf_map__set_max_entries(void *map, uint32_t entries)',
);
export const mapFd: (map: Pointer) => number = libbpf.func('int bpf_map__fd(void *map)');
/** The map is to be this one, that exists already. */
export const mapReuse: (map: Pointer, fd: number) => number = libbpf.func(
  'int bpf_map__reuse_fd(void *map, int fd)',
);
export const mapPin: (map: Pointer, path: string) => number = libbpf.func(
  'int bpf_map__pin(void *map, const char *path)',
);
export const programPin: (program: Pointer, path: string) => number = libbpf.func(
  'int bpf_program__pin(void *program, const char *path)',
);
const objPin: (fd: number, path: string) => number = libbpf.func(
  'int bpf_obj_pin(int fd, const char *path)',
);
export const objectGet: (path: string) => number = libbpf.func('int bpf_obj_get(const char *path)');
export const infoByFd: (fd: number, info: Uint8Array, length: Uint8Array) => number = libbpf.func(
  'int bpf_obj_get_info_by_fd(int fd, void *info, void *length)',
);
export const programFdById: (id: number) => number = libbpf.func(
  'int bpf_prog_get_fd_by_id(uint32_t id)',
);
export const lookup: (fd: number, key: Uint8Array, value: Uint8Array) => number = libbpf.func(
  'int bpf_map_lookup_elem(int fd, const void *key, void *value)',
);
export const update: (
  fd: number,
  key: Uint8Array | null,
  value: Uint8Array,
  flags: number,
) => number = libbpf.func('int bpf_map_update_elem(int, const void *, const void *, uint64_t)');
export const remove: (fd: number, key: Uint8Array) => number = libbpf.func(
  'int bpf_map_delete_elem(int fd, const void *key)',
);
export const lookupBatch: (
  fd: number,
  from: Uint8Array | null,
  next: Uint8Array,
  keys: Uint8Array,
  values: Uint8Array,
  count: Uint8Array,
  options: null,
) => number = libbpf.func(
  'int bpf_map_lookup_batch(int, void *, void *, void *, void *, void *count, void *options)',
);
export const possibleCpus: () => number = libbpf.func('int libbpf_num_possible_cpus()');
const testRunOpts: (fd: number, options: Uint8Array) => number = libbpf.func(
  'int bpf_prog_test_run_opts(int fd, void *options)',
);

const SampleFunction = koffi.proto('int TiflowSample(void *context, void *bytes, size_t length)');
export type SampleCallback = (context: unknown, bytes: Pointer, length: number | bigint) => number;
export const registerSample = (callback: SampleCallback): Pointer =>
  koffi.register(callback, koffi.pointer(SampleFunction));
export const unregister: (callback: Pointer) => void = koffi.unregister;
export const ringNew: (
  fd: number,
  callback: Pointer,
  context: null,
  options: null,
) => Pointer | null = libbpf.func(
  'void *ring_buffer__new(int fd, TiflowSample *callback, void *context, void *options)',
);
export const ringAdd: (ring: Pointer, fd: number, callback: Pointer, context: null) => number =
  libbpf.func('int ring_buffer__add(void *ring, int fd, TiflowSample *callback, void *context)');
export const ringFree: (ring: Pointer) => void = libbpf.func('void ring_buffer__free(void *ring)');
export const ringConsume: (ring: Pointer) => number = libbpf.func(
  'int ring_buffer__consume(void *ring)',
);
export const ringEpollFd: (ring: Pointer) => number = libbpf.func(
  'int ring_buffer__epoll_fd(void *ring)',
);
/** Copies C memory that is valid only during a callback. */
export const copyMemory: (to: Uint8Array, from: Pointer, length: number) => void = libc.func(
  'void memcpy(void *to, const void *from, size_t length)',
);

/** Pins a map or a program.  Throws SystemError. */
export function pinFd(fd: number, path: string): void {
  const error = objPin(fd, path);
  if (error !== 0) throw libbpfError(`pin ${path}`, error);
}

const MAP_INFO_BYTES = 80;

/** What the kernel calls a map: struct bpf_map_info.  Throws SystemError. */
export function mapId(fd: number): number {
  const info = Buffer.alloc(MAP_INFO_BYTES);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(info.length);
  const error = infoByFd(fd, info, length);
  if (error !== 0) throw libbpfError('read about a map', error);
  return info.readUInt32LE(4);
}

const PROGRAM_INFO_BYTES = 80;

/** Id and name, of which the kernel keeps 15 characters: struct bpf_prog_info.  Throws SystemError. */
export function programInfo(fd: number): { id: number; name: string } {
  const info = Buffer.alloc(PROGRAM_INFO_BYTES);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(info.length);
  const error = infoByFd(fd, info, length);
  if (error !== 0) throw libbpfError('read about a program', error);
  const name = info.toString('latin1', 64, 80);
  return { id: info.readUInt32LE(4), name: name.slice(0, Math.max(0, name.indexOf('\0'))) };
}

/** What a program is run on, and where its output goes: struct bpf_test_run_opts. */
export interface TestRun {
  data?: Uint8Array;
  dataOut?: Uint8Array;
  context?: Uint8Array;
  contextOut?: Uint8Array;
  repeat?: number;
}

/** What the program returned; the length of its data; nanoseconds per repetition. */
export interface TestResult {
  error: number;
  returned: number;
  dataLength: number;
  durationNs: number;
}

/** BPF_PROG_TEST_RUN: runs a loaded program once, or `repeat` times. */
export function testRun(programFd: number, run: TestRun): TestResult {
  const options = Buffer.alloc(80);
  const pointer = (bytes: Uint8Array | undefined, at: number, lengthAt: number): void => {
    if (bytes === undefined) return;
    options.writeBigUInt64LE(koffi.address(bytes), at);
    options.writeUInt32LE(bytes.length, lengthAt);
  };
  options.writeBigUInt64LE(80n, 0);
  pointer(run.data, 8, 24);
  pointer(run.dataOut, 16, 28);
  pointer(run.context, 32, 48);
  pointer(run.contextOut, 40, 52);
  options.writeInt32LE(run.repeat ?? 0, 60);
  const error = testRunOpts(programFd, options);
  return {
    error,
    returned: options.readUInt32LE(56),
    dataLength: options.readUInt32LE(28),
    durationNs: options.readUInt32LE(64),
  };
}

/* libbpf would print to stderr; its words, the verifier's above all, belong to the error. */
const log: string[] = [];
const logBuffer = Buffer.alloc(LOG_BYTES_MAX);
setPrint(
  koffi.register((level: number, format: Pointer, args: Pointer) => {
    const LIBBPF_DEBUG = 2;
    if (level >= LIBBPF_DEBUG) return 0;
    const length = vsnprintf(logBuffer, logBuffer.length, format, args) as number;
    const text = logBuffer.toString('utf8', 0, Math.min(length, logBuffer.length - 1));
    log.push(...text.split('\n').filter((line) => line !== ''));
    log.splice(0, log.length - LOG_LINES_MAX);
    return 0;
  }, koffi.pointer(PrintFunction)),
);

/** Forgets what libbpf has said so far. */
export function clearLog(): void {
  log.length = 0;
}

/** A SystemError whose cause holds what libbpf and the verifier said since clearLog(). */
export function libbpfError(attempted: string, errno: number, hint?: string): SystemError {
  const positive = Math.abs(errno);
  const cause = log.length === 0 ? undefined : new Error(`libbpf: ${log.join('\n')}`);
  return new SystemError(attempted, positive, {
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  });
}

function loadLibrary(): ReturnType<typeof koffi.load> {
  try {
    return koffi.load('libbpf.so.1');
  } catch (cause) {
    throw new SystemError('load libbpf.so.1', constants.errno.ENOENT, {
      hint: 'install the package libbpf1',
      cause,
    });
  }
}
