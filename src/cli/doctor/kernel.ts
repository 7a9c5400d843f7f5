/* What the kernel must have, tried rather than concluded from its version: distributions
 * configure, backport and remove.
 */

import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { SystemError } from '../../libc/errno.js';
import { CAPABILITIES_NEEDED, missingCapabilities } from '../privileges.js';
import { type Check, fail, ok, warn } from './check.js';
import { run } from './command.js';

const BTF_PATH = '/sys/kernel/btf/vmlinux';

/* enum bpf_prog_type, bpf_map_type and bpf_func_id, linux/bpf.h */
const PROGRAM_TYPE_TC = 3;
const FEATURES: readonly { id: string; what: string; probe: (p: Probe) => number }[] = [
  { id: 'tc-programs', what: 'tc programs', probe: (p) => p.programType(PROGRAM_TYPE_TC) },
  { id: 'syscall-programs', what: 'SYSCALL programs', probe: (p) => p.programType(31) },
  { id: 'queue-maps', what: 'queue maps', probe: (p) => p.mapType(22) },
  { id: 'ring-buffers', what: 'ring buffers', probe: (p) => p.mapType(27) },
  { id: 'bpf-loop', what: 'bpf_loop', probe: (p) => p.helper(PROGRAM_TYPE_TC, 181) },
  {
    id: 'redirect-neigh',
    what: 'bpf_redirect_neigh',
    probe: (p) => p.helper(PROGRAM_TYPE_TC, 152),
  },
];

/** Kernel, its features, and what this process may do with them. */
export async function checkKernel(): Promise<Check[]> {
  return [
    checkRelease(release()),
    checkCapabilities(),
    checkBtf(),
    ...(await checkBpf()),
    checkFilesystem(readFileSync('/proc/filesystems', 'utf8')),
    checkClsact(),
    await checkSocketDestroy(),
    await checkIpv6(),
    ...checkJit(),
  ];
}

/** 5.17 is the first with bpf_loop: docs/decisions/0004.  Older ones may have it by backport, so
 * the checks of the features decide.
 */
export function checkRelease(text: string): Check {
  const [major = 0, minor = 0] = text.split('.').map((part) => Number.parseInt(part, 10));
  const name = 'kernel.release';
  if (major > 5 || (major === 5 && minor >= 17)) return ok(name, `Linux ${text}`);
  return warn(
    name,
    `Linux ${text} is older than 5.17`,
    'if a feature is missing, boot a newer one',
  );
}

function checkCapabilities(): Check {
  const missing = missingCapabilities();
  const name = 'privileges';
  if (missing.length === 0) return ok(name, CAPABILITIES_NEEDED.join(' '));
  return fail(name, `missing: ${missing.join(' ')}`, 'run as root');
}

function checkBtf(): Check {
  try {
    accessSync(BTF_PATH, constants.R_OK);
    return ok('kernel.btf', BTF_PATH);
  } catch {
    const advice = 'use a kernel built with CONFIG_DEBUG_INFO_BTF';
    return fail('kernel.btf', `${BTF_PATH} is not readable`, advice);
  }
}

/* Probing loads a tiny program or map, which needs the privilege that the daemon needs. */
async function checkBpf(): Promise<Check[]> {
  const probe = await openProbe();
  if (typeof probe === 'string') {
    return [fail('kernel.bpf', probe, 'install libbpf 1 (Debian: apt install libbpf1)')];
  }
  const object = await checkObject();
  if (missingCapabilities(['CAP_BPF']).length > 0) {
    return [warn('kernel.bpf', 'not checked without CAP_BPF', 'run tiflow doctor as root'), object];
  }
  const features = FEATURES.map(({ id, what, probe: ask }) =>
    ask(probe) === 1
      ? ok(`kernel.${id}`, `has ${what}`)
      : fail(`kernel.${id}`, `has no ${what}`, 'use a kernel from 5.17 with CONFIG_BPF_SYSCALL'),
  );
  return [...features, object];
}

interface Probe {
  /** 1: supported, 0: not, negative: cannot be told. */
  programType(type: number): number;
  mapType(type: number): number;
  helper(programType: number, helper: number): number;
}

async function openProbe(): Promise<Probe | string> {
  try {
    const { default: koffi } = await import('koffi');
    const library = koffi.load('libbpf.so.1');
    const programType = library.func('int libbpf_probe_bpf_prog_type(int, void *)');
    const mapType = library.func('int libbpf_probe_bpf_map_type(int, void *)');
    const helper = library.func('int libbpf_probe_bpf_helper(int, int, void *)');
    return {
      helper: (type, id) => helper(type, id, null) as number,
      programType: (type) => programType(type, null) as number,
      mapType: (type) => mapType(type, null) as number,
    };
  } catch (error) {
    return `libbpf.so.1: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** `filesystems`: the text of /proc/filesystems. */
export function checkFilesystem(filesystems: string): Check {
  if (/^nodev\tbpf$/m.test(filesystems)) return ok('kernel.bpffs', 'bpffs can be mounted');
  return fail('kernel.bpffs', 'no bpf filesystem', 'use a kernel built with CONFIG_BPF_SYSCALL');
}

/* In a network namespace of its own, so that nothing of this one is changed. */
function checkClsact(): Check {
  const name = 'kernel.clsact';
  const tried = run('unshare', ['--net', 'tc', 'qdisc', 'add', 'dev', 'lo', 'clsact']);
  if (tried.status === 0) return ok(name, 'clsact can be attached');
  if (missingCapabilities(['CAP_SYS_ADMIN']).length > 0) {
    return warn(name, 'not checked without CAP_SYS_ADMIN', 'run tiflow doctor as root');
  }
  if (tried.status === undefined || tried.status === 127) {
    return warn(name, 'not checked: unshare or tc is missing', 'install util-linux and iproute2');
  }
  const advice = 'use a kernel built with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF';
  return fail(name, `clsact cannot be attached: ${tried.stderr}`, advice);
}

async function checkIpv6(): Promise<Check> {
  const { hasIpv6 } = await import('../../libc/raw.js');
  const name = 'kernel.ipv6';
  if (missingCapabilities(['CAP_NET_RAW']).length > 0) {
    return warn(name, 'not checked without CAP_NET_RAW', 'run tiflow doctor as root');
  }
  if (hasIpv6()) return ok(name, 'has IPv6');
  return warn(
    name,
    'no IPv6: IPv4 connections only',
    'boot without ipv6.disable=1, if you need it',
  );
}

/* Asked to end a socket that cannot exist, a kernel that could says that there is none. */
async function checkSocketDestroy(): Promise<Check> {
  const name = 'kernel.socket-destroy';
  const { Netlink } = await import('../../netlink/netlink.js');
  const { destroySocket } = await import('../../link/sockets.js');
  const { address } = await import('../../wire/address.js');
  const nobody = address('0.0.0.1'); // RFC 6890: never a source nor a destination
  const netlink = new Netlink();
  try {
    destroySocket(netlink, { local: nobody, remote: nobody, localPort: 1, remotePort: 1 });
    return ok(name, 'sockets can be reset');
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.code === 'EPERM') {
      return warn(name, 'not checked without CAP_NET_ADMIN', 'run tiflow doctor as root');
    }
    return warn(
      name,
      `sockets cannot be reset (${error.code}): programs whose flow cannot be moved wait for TCP`,
      'use a kernel built with CONFIG_INET_DIAG_DESTROY',
    );
  } finally {
    netlink.close();
  }
}

/* Loads libbpf, so only once that is known to work. */
async function checkObject(): Promise<Check> {
  const { DEFAULT_OBJECT } = await import('../../boundary/load.js');
  if (existsSync(DEFAULT_OBJECT)) return ok('data-plane', DEFAULT_OBJECT);
  return fail('data-plane', `${DEFAULT_OBJECT} is missing`, 'make build');
}

function checkJit(): Check[] {
  try {
    const enabled = readFileSync('/proc/sys/net/core/bpf_jit_enable', 'utf8').trim() !== '0';
    if (enabled) return [ok('kernel.jit', 'BPF programs are compiled')];
    const advice = 'sysctl -w net.core.bpf_jit_enable=1';
    return [warn('kernel.jit', 'BPF programs are interpreted: every packet costs more', advice)];
  } catch {
    return []; // CONFIG_BPF_JIT_ALWAYS_ON in another network namespace: nothing to set
  }
}
