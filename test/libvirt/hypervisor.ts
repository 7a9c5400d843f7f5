/*
 * A hypervisor for tests: libvirtd and sshd in network, mount, process and host name namespaces of
 * their own, with a /run, /var and /etc/libvirt of their own, so that several stand on one machine,
 * and what they start dies with them.
 *
 *     NAME: libvirtd ── hook ──┬─ curl ── FakeDaemon      m0 10.9.0.N/24 ── m0 of the other one
 *                              └─ ssh ──► the other one's hook
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  createNamespace,
  deleteNamespace,
  insideNamespace,
  runCommand,
} from '../../src/lab/namespace.js';
import { ownName } from '../../src/lab/own-name.js';
import { until } from '../../src/lab/wait.js';

const HOOK = fileURLToPath(new URL('../../../etc/libvirt-hook', import.meta.url));
const START_BOUND_MS = 20_000;

const execute = promisify(execFile);

/** A key for both ends of ssh, and names of hosts; what is to be put in front of a host's name. */
export function prepareSsh(directory: string, hosts: Record<string, string>): string {
  const key = join(directory, 'key');
  runCommand(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'tiflow', '-f', key]);
  const known = ['UserKnownHostsFile /dev/null', 'StrictHostKeyChecking no', 'LogLevel ERROR'];
  const lines = [
    ...Object.entries(hosts).map(([name, address]) => `Host ${name}\n HostName ${address}`),
    ...['Host *', 'User root', `IdentityFile ${key}`, 'IdentitiesOnly yes', ...known],
  ];
  const config = join(directory, 'ssh_config');
  writeFileSync(config, `${lines.join('\n')}\n`);
  return `ssh -F ${config} -o BatchMode=yes -o ConnectTimeout=3`;
}

/* $1: the hypervisor's directory, $2: its host name.  The shell is process 1 and reaps what
 * libvirtd leaves, as an init does.  Debian's libvirtd looks its user up even where another is configured.
 */
const START = `
set -eu
mount --make-rprivate /
mount -t tmpfs none /run
mount -t tmpfs none /var
mkdir -p /run/libvirt /run/sshd /var/lib /var/log /var/cache
for f in passwd group; do cp /etc/$f "$1/$f"; done
echo 'libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin' >> "$1/passwd"
echo 'libvirt-qemu:x:64055:' >> "$1/group"
for f in passwd group; do mount --bind "$1/$f" "/etc/$f"; done
mount --bind "$1/etc" /etc/libvirt
mount -t proc proc /proc
hostname "$2"
/usr/sbin/sshd -D -e -f "$1/sshd_config" &
libvirtd -f "$1/libvirtd.conf" -p "$1/libvirtd.pid" &
wait
`;

const QEMU_CONF = `
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`;

export class Hypervisor {
  readonly name: string;
  readonly namespace: string;
  readonly directory: string;
  readonly address: string;
  /** Of the daemon that the hook speaks with. */
  readonly daemonSocket: string;
  #number: number;
  #unshare: ChildProcess | undefined;

  constructor(parent: string, name: string, number: number) {
    this.name = name;
    this.namespace = ownName(name);
    this.directory = join(parent, name);
    this.address = `10.9.0.${number}`;
    this.daemonSocket = join(this.directory, 'tiflow.sock');
    this.#number = number;
    createNamespace(this.namespace);
    for (const each of ['etc/hooks', 'sock']) {
      mkdirSync(join(this.directory, each), { recursive: true });
    }
    writeFileSync(join(this.directory, 'etc/qemu.conf'), QEMU_CONF);
    writeFileSync(join(this.directory, 'etc/hooks/qemu'), readFileSync(HOOK), { mode: 0o755 });
    writeFileSync(join(this.directory, 'libvirtd.conf'), this.#libvirtdConf());
    writeFileSync(join(this.directory, 'sshd_config'), this.#sshdConfig(join(parent, 'key')));
  }

  /** The hook's settings, shell. */
  configureHook(lines: readonly string[]): void {
    const own = [`SOCKET=${this.daemonSocket}`, `LOG="tee -a ${this.directory}/hook.log"`];
    writeFileSync(join(this.directory, 'etc/tiflow.conf'), `${[...own, ...lines].join('\n')}\n`);
  }

  hookLog(): string {
    try {
      return readFileSync(join(this.directory, 'hook.log'), 'utf8');
    } catch {
      return ''; // nothing yet
    }
  }

  clearHookLog(): void {
    rmSync(join(this.directory, 'hook.log'), { force: true });
  }

  async start(): Promise<void> {
    const unshare = ['unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child'];
    const shell = ['sh', '-c', START, 'sh', this.directory, this.name];
    const [program = '', ...rest] = insideNamespace(this.namespace, [...unshare, ...shell]);
    this.#unshare = spawn(program, rest, { stdio: 'ignore' });
    const answers = () =>
      this.virsh('list').then(
        () => true,
        () => false,
      );
    await until(`libvirtd of ${this.name}`, answers, START_BOUND_MS);
  }

  get uri(): string {
    return `qemu+unix:///system?socket=${this.directory}/sock/libvirt-sock`;
  }

  /** What virsh says; throws with its complaint. */
  async virsh(...argv: string[]): Promise<string> {
    const { stdout } = await execute('virsh', ['-q', '-c', this.uri, ...argv]);
    return stdout.trim();
  }

  /** Whether an interface is there and up; undefined: not there. */
  async isUp(name: string): Promise<boolean | undefined> {
    const show = execute('ip', ['-n', this.namespace, '-o', 'link', 'show', 'dev', name]);
    return show.then(
      ({ stdout }) => /<[^>]*\bUP\b/.test(stdout),
      () => undefined,
    );
  }

  /** Ends libvirtd and all that it has started. */
  async stop(): Promise<void> {
    const unshare = this.#unshare;
    if (unshare !== undefined && unshare.exitCode === null && unshare.signalCode === null) {
      const exit = once(unshare, 'exit');
      unshare.kill('SIGKILL');
      await exit;
    }
    this.abandon();
  }

  /** The same without waiting, for an exit. */
  abandon(): void {
    this.#unshare?.kill('SIGKILL');
    deleteNamespace(this.namespace);
  }

  #sshdConfig(key: string): string {
    return [
      ...[`ListenAddress ${this.address}`, `HostKey ${key}`, `AuthorizedKeysFile ${key}.pub`],
      ...['PidFile none', 'StrictModes no', 'UsePAM no', 'UseDNS no', 'PrintMotd no'],
      ...['PermitRootLogin prohibit-password', 'PasswordAuthentication no', ''],
    ].join('\n');
  }

  #libvirtdConf(): string {
    const uuid = `00000000-1111-2222-3333-${String(this.#number).padStart(12, '0')}`;
    return [
      `host_uuid = "${uuid}"`,
      `unix_sock_dir = "${this.directory}/sock"`,
      'auth_unix_rw = "none"',
      `log_outputs = "3:file:${this.directory}/libvirtd.log"`,
      '',
    ].join('\n');
  }
}
