/*
 * Errors of system calls: what was attempted, on what, why it failed, what to do.
 *
 * Not for the outside misbehaving (packets, peers): that is counted, not thrown.
 */
import { constants } from 'node:os';
import koffi from 'koffi';

/** Numbers that libc has no name for but that netlink, BPF and libbpf return. */
const KERNEL_ERRNO = {
  ENOTSUPP: 524,
  LIBBPF_LIBELF: 4000,
  LIBBPF_FORMAT: 4001,
  LIBBPF_KVERSION: 4002,
  LIBBPF_ENDIAN: 4003,
  LIBBPF_INTERNAL: 4004,
  LIBBPF_RELOC: 4005,
  LIBBPF_LOAD: 4006,
  LIBBPF_VERIFY: 4007,
  LIBBPF_PROG2BIG: 4008,
  LIBBPF_KVER: 4009,
};

/** Errno numbers by name, as on this platform. */
export const ERRNO = {
  ...constants.errno,
  ENOTUNIQ: 76,
  ENONET: 64,
  ESHUTDOWN: 108,
  EHOSTDOWN: 112,
  ...KERNEL_ERRNO,
} as const;

const NAMES = new Map(
  Object.entries(ERRNO)
    // The aliases that errno(3) lists second must not hide the usual names.
    .filter(([name]) => name !== 'EWOULDBLOCK' && name !== 'EOPNOTSUPP')
    .map(([name, number]) => [number, name]),
);

/** 'EPERM' for 1; 'errno 12345' if it has no name. */
export const errnoName = (errno: number): string => NAMES.get(errno) ?? `errno ${errno}`;

const HINTS: Record<string, string> = {
  EPERM: 'needs root, or CAP_BPF and CAP_NET_ADMIN',
  EACCES: 'needs root, or CAP_BPF and CAP_NET_ADMIN',
};

/**
 * A failed system call.
 *
 * Its message reads 'attach boundary to eth0: EPERM (needs root, or CAP_BPF and …)'.
 */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;

  /**
   * `attempted`: what failed, on which object.  `errno`: positive.  `hint`: what to do; without
   * one, the code's usual hint is taken.  `cause`: an underlying error or log.
   */
  constructor(attempted: string, errno: number, o: { hint?: string; cause?: unknown } = {}) {
    const code = errnoName(errno);
    const hint = o.hint ?? HINTS[code];
    super(
      `${attempted}: ${code}${hint === undefined ? '' : ` (${hint})`}`,
      o.cause === undefined ? {} : { cause: o.cause },
    );
    this.name = 'SystemError';
    this.code = code;
    this.errno = errno;
  }
}

/** The errno of the C call that has just been made. */
export const lastErrno = (): number => koffi.errno();

/** `result` unless it is negative: then a SystemError with the errno of the call just made. */
export function checked(result: number, attempted: string): number {
  if (result < 0) throw new SystemError(attempted, koffi.errno());
  return result;
}
