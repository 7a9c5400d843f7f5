/**
 * The guest's image: Debian's kernel and an initramfs of Debian's binaries that is its root file
 * system. Made of the packages on this machine and of Debian's cloud kernel, which is fetched by
 * apt but never installed; kept in a cache whose key is all that goes in. Nothing is fetched when
 * the cache has it.
 *
 * Not here: what differs from lab to lab, as keys (initrd.ts).
 */
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { fileURLToPath } from 'node:url';
import { buildInCache, CACHE, withNewLists } from '../cache.js';
import { LabError, runCommand } from '../namespace.js';
import { UDHCPC_SCRIPT } from '../services.js';
import { archive, copyFiles, withLibraries, writeFiles } from './archive.js';
import { baseFiles } from './guest-files.js';

const KERNEL = 'linux-image-cloud-amd64';
const BUSYBOX = '/bin/busybox';
const PROGRAMS = ['/usr/sbin/sshd', '/usr/sbin/mkfs.ext4', '/usr/sbin/e2fsck'];
/** Beside Node, what the tiflow daemon loads or calls. */
const TIFLOW_NEEDS = ['/usr/bin/flock', '/usr/lib/x86_64-linux-gnu/libbpf.so.1'];
/* With what they depend on. The rest of what a guest needs is built in; the second line is what a
 * Debian guest loads by itself when tiflow asks for it.
 */
const MODULES = [
  ...['virtio_pci', 'virtio_net', 'virtio_blk'],
  ...['sch_ingress', 'cls_bpf', 'act_bpf', 'inet_diag', 'tcp_diag'],
];

/** Paths of files. */
export interface GuestImage {
  kernel: string;
  /** archives of an initramfs: every guest has the first, one with tiflow both */
  base: string;
  node: string;
}

/** The image for this machine's packages; built now if there is none. Throws LabError. */
export function guestImage(cache = CACHE): GuestImage {
  const kernelPackage = newestKernel();
  const programs = withLibraries(PROGRAMS);
  const node = withLibraries([realpathSync(process.execPath), ...TIFLOW_NEEDS]);
  const directory = `${cache}/${keyOf([kernelPackage], [BUSYBOX, ...programs, ...node])}`;
  if (!existsSync(directory)) {
    buildInCache(cache, directory, (work) => {
      const kernel = unpackKernel(work, kernelPackage);
      buildBase(work, kernel, programs);
      copyFiles(`${work}/node`, node);
      linkNode(`${work}/node`);
      archive(`${work}/node`, `${work}/image/node.cpio`);
    });
  }
  return {
    kernel: `${directory}/vmlinuz`,
    base: `${directory}/base.cpio`,
    node: `${directory}/node.cpio`,
  };
}

/** 'linux-image-6.1.0-NN-cloud-amd64=VERSION', as apt takes it. */
function newestKernel(): string {
  const find = (): string | undefined => {
    const depends = runCommand(['apt-cache', 'depends', '--important', KERNEL]);
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    const policy = name === undefined ? '' : runCommand(['apt-cache', 'policy', name]);
    const version = /Candidate: (\d\S*)/.exec(policy)?.[1];
    return version === undefined ? undefined : `${name}=${version}`;
  };
  const known = find();
  if (known !== undefined) return known;
  runCommand(['apt-get', 'update', '-q']);
  const found = find();
  if (found === undefined) throw new LabError(`guest image: apt knows no package ${KERNEL}`);
  return found;
}

/** Of all that goes in: our own source, versions, and the files by size and time. */
function keyOf(versions: readonly string[], files: readonly string[]): string {
  const hash = createHash('sha256');
  for (const source of ['archive', 'guest-files', 'image', '../services']) {
    hash.update(readFileSync(fileURLToPath(new URL(`./${source}.js`, import.meta.url))));
  }
  for (const version of versions) hash.update(`${version}\n`);
  for (const file of files) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}

/** Fetches and unpacks the kernel package; returns the directory that it is in. */
function unpackKernel(work: string, kernelPackage: string): string {
  const into = `${work}/kernel`;
  mkdirSync(into);
  // apt gives up root for downloads and says so where that user cannot write: here it cannot.
  const fetch = 'cd "$1" && apt-get download -q -o APT::Sandbox::User=root "$2"';
  withNewLists(() => runCommand(['sh', '-c', fetch, 'sh', into, kernelPackage]));
  const file = readdirSync(into).find((name) => name.endsWith('.deb'));
  runCommand(['dpkg-deb', '-x', `${into}/${file}`, into]);
  return into;
}

function buildBase(work: string, kernel: string, programs: readonly string[]): void {
  const tree = `${work}/base`;
  const [version = ''] = readdirSync(`${kernel}/lib/modules`);
  for (const name of ['dev', 'proc', 'sys', 'run', 'tmp', 'root', 'mnt', 'www', 'var']) {
    mkdirSync(`${tree}/${name}`, { recursive: true });
  }
  copyFiles(tree, [BUSYBOX, ...programs]);
  linkBusybox(tree, programs);
  copyModules(kernel, tree, version);
  writeFiles(tree, baseFiles(UDHCPC_SCRIPT));
  archive(tree, `${work}/image/base.cpio`);
  cpSync(`${kernel}/boot/vmlinuz-${version}`, `${work}/image/vmlinuz`);
}

/** busybox under the names of its applets, except where the guest has the real program. */
function linkBusybox(tree: string, programs: readonly string[]): void {
  for (const path of runCommand([BUSYBOX, '--list-full']).split('\n').filter(Boolean)) {
    if (programs.includes(`/${path}`) || path === 'linuxrc') continue;
    runCommand(['mkdir', '-p', `${tree}/${path.slice(0, path.lastIndexOf('/') + 1)}`]);
    if (!existsSync(`${tree}/${path}`)) symlinkSync(BUSYBOX, `${tree}/${path}`);
  }
  symlinkSync(BUSYBOX, `${tree}/init`);
}

/** The modules with all that they depend on. busybox does it: Debian's kmod may not be here. */
function copyModules(kernel: string, tree: string, version: string): void {
  const from = `${kernel}/lib/modules/${version}`;
  const to = `${tree}/lib/modules/${version}`;
  runCommand([BUSYBOX, 'depmod', '-b', kernel, version]);
  const lines = readFileSync(`${from}/modules.dep`, 'utf8').split('\n');
  for (const module of MODULES) {
    const line = lines.find((l) => l.slice(0, l.indexOf(':')).endsWith(`/${module}.ko`));
    if (line === undefined) throw new LabError(`guest image: no module ${module} in ${version}`);
    for (const path of line.replace(':', '').split(' ').filter(Boolean)) {
      cpSync(`${from}/${path}`, `${to}/${path}`);
    }
  }
  runCommand([BUSYBOX, 'depmod', '-b', tree, version]);
}

/** process.execPath may be anywhere; the guest has it at /usr/bin/node. */
function linkNode(tree: string): void {
  const node = realpathSync(process.execPath);
  if (node === '/usr/bin/node') return;
  mkdirSync(`${tree}/usr/bin`, { recursive: true });
  symlinkSync(node, `${tree}/usr/bin/node`);
}
