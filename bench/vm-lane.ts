/*
 * A lane of the measurements with VMs: a lab with one guest, which goes from hypervisor to
 * hypervisor and back in the lane's own way.
 *
 *   tiflow        porthos is in another subnet; `tiflow migrate`, boundary on the tap
 *   same subnet   porthos has a bridge in the guest's own subnet, by a cable; QEMU's announcement
 *   vxlan         the same, by a tunnel: the subnet is stretched, all traffic goes by the old site
 *
 *     aramis ─── router ─┬─ athos    br0 192.0.2.1/24 ── vnet0 ── vm
 *                        │           │ l2: veth or vxlan
 *                        └─ porthos  br1 ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ vm  (same subnet, vxlan)
 *                                    br0 198.51.100.1/24 ┄┄┄┄┄┄┄┄ vm  (tiflow)
 */
import { ipBatch, LabError } from '../src/lab/namespace.js';
import { seenFromOutside } from '../src/lab/own-mounts.js';
import { sweepStale } from '../src/lab/registry.js';
import type { Site } from '../src/lab/topology.js';
import { MANAGEMENT } from '../src/lab/vm/hypervisor.js';
import { VmLab } from '../src/lab/vm/lab.js';
import { TAPS } from '../src/lab/vm/machine.js';
import { Migration } from '../src/lab/vm/migration.js';
import { qmp } from '../src/lab/vm/qmp.js';
import { now, until } from '../src/lab/wait.js';
import { onEveryExit } from './cleanup.js';
import { QemuEvents, WATCH_ARGUMENTS, WATCH_PATH } from './qemu-events.js';

export type VmLaneKind = 'tiflow' | 'same subnet' | 'vxlan';

/** What QEMU says of one migration; times on the lab's clock. */
export interface VmMove {
  stoppedMs: number;
  resumedMs: number;
  /** QEMU's own figure: from the stop until its last byte was sent */
  downtimeMs: number;
  /** when the last TI flow was proven at the destination; undefined: no tiflow */
  provenMs?: number;
}

type Figures = Pick<VmMove, 'downtimeMs' | 'provenMs'>;

const MEMORY_PORT = 4444;
/* No limit of QEMU's own: tiflow sets none either. */
const UNLIMITED = 2 ** 50;
const VXLAN = 'type vxlan id 42 dstport 4789';
/* The tunnel's 50 bytes must fit beside a full packet of the guest. */
const UNDERLAY_MTU = 1600;

export class VmLane {
  readonly kind: VmLaneKind;
  readonly lab: VmLab;
  readonly #release: () => void;
  site: Site = 'athos';

  private constructor(kind: VmLaneKind, name: string) {
    this.kind = kind;
    const daemons = kind === 'tiflow' ? {} : { daemons: [] };
    this.lab = VmLab.prepare(name, true, { ...daemons, qemu: WATCH_ARGUMENTS });
    this.#release = onEveryExit(() => this.lab.teardown());
  }

  /** Builds the lab with its guest booted at athos. */
  static async build(kind: VmLaneKind, number: number): Promise<VmLane> {
    sweepStale();
    const lane = new VmLane(kind, `bench-${process.pid}-${number}`);
    await lane.lab.build();
    if (kind !== 'tiflow') lane.#stretch(kind);
    return lane;
  }

  remove(): void {
    this.#release();
  }

  /** By what a client reaches the guest where it is now. */
  get address(): string {
    const site = this.kind === 'tiflow' ? this.site : 'athos';
    return this.lab.vmAddress(4, 'vm', site);
  }

  get otherSite(): Site {
    return this.site === 'athos' ? 'porthos' : 'athos';
  }

  /** Migrates the guest to the other hypervisor; returns when it runs there and nowhere else. */
  async move(): Promise<VmMove> {
    const [from, to] = [this.site, this.otherSite];
    const source = await QemuEvents.open(this.#watchSocket(from));
    try {
      const move = this.kind === 'tiflow' ? this.#moveByTiflow(to) : this.#moveByQemu(from, to);
      const destination = QemuEvents.open(this.#watchSocket(to));
      const [figures, target] = await Promise.all([move, destination]);
      this.site = to;
      const [stoppedMs, resumedMs] = [await source.first('STOP'), await target.first('RESUME')];
      target.close();
      return { stoppedMs, resumedMs, ...figures };
    } finally {
      source.close();
    }
  }

  #watchSocket(site: Site): string {
    return seenFromOutside(this.lab.host(site), WATCH_PATH);
  }

  async #moveByTiflow(to: Site): Promise<Figures> {
    const at = now();
    const migration = await Migration.start(this.lab, { vm: 'vm', to });
    const last = await migration.finish();
    if (last?.event !== 'migrated') throw new LabError(`tiflow migrate: ${migration.verdict}`);
    const proven = this.lab.daemon(to).events.filter((e) => e.event === 'proven' && e.at_ms > at);
    const downtimeMs = last.downtime_ms ?? Number.NaN;
    return proven.length === 0
      ? { downtimeMs }
      : { downtimeMs, provenMs: Math.max(...proven.map((e) => e.at_ms)) };
  }

  /* As a manager of VMs does it, without the parts that have to do with tiflow. */
  async #moveByQemu(from: Site, to: Site): Promise<Figures> {
    const { lab } = this;
    const at = `tcp:${MANAGEMENT[to]}:${MEMORY_PORT}`;
    await lab.startQemu('vm', to, [...WATCH_ARGUMENTS, '-incoming', at]);
    if (to === 'porthos') ipBatch(lab.namespaces[to], [`link set ${TAPS.vm} master br1`]);
    const monitor = lab.qmpSocket('vm', from);
    await qmp(monitor, 'migrate-set-parameters', { 'max-bandwidth': UNLIMITED });
    await qmp(monitor, 'migrate', { uri: at });
    await until('the migration to be completed', () => completed(monitor), 90_000);
    await until('the guest to run', async () => (await lab.states('vm'))[to] === 'running');
    const { downtime } = await migrateInfo(monitor);
    await qmp(monitor, 'quit');
    await until('QEMU to end', () => lab.qemus('vm', from).length === 0);
    return { downtimeMs: downtime ?? Number.NaN };
  }

  /* porthos gets a bridge that is in athos' subnet. */
  #stretch(kind: 'same subnet' | 'vxlan'): void {
    const { athos, porthos, router } = this.lab.namespaces;
    ipBatch(porthos, ['link add br1 type bridge', 'link set br1 up']);
    if (kind === 'same subnet') {
      ipBatch(porthos, [`link add l2 type veth peer name l2 netns ${athos}`]);
    } else {
      const { athos: near, porthos: far } = MANAGEMENT;
      ipBatch(porthos, [`link add l2 ${VXLAN} local ${far} remote ${near}`]);
      ipBatch(athos, [`link add l2 ${VXLAN} local ${near} remote ${far}`]);
      for (const namespace of [athos, porthos]) {
        ipBatch(namespace, [`link set up0 mtu ${UNDERLAY_MTU}`]);
      }
      ipBatch(
        router,
        ['athos0', 'porthos0'].map((l) => `link set ${l} mtu ${UNDERLAY_MTU}`),
      );
    }
    ipBatch(porthos, ['link set l2 master br1 up']);
    ipBatch(athos, ['link set l2 master br0 up']);
  }
}

async function completed(monitor: string): Promise<boolean> {
  const info = await migrateInfo(monitor);
  if (info.status === 'failed' || info.status === 'cancelled') {
    throw new LabError(`the migration has ${info.status}: ${info['error-desc'] ?? ''}`);
  }
  return info.status === 'completed';
}

interface MigrateInfo {
  status?: string;
  downtime?: number;
  'error-desc'?: string;
}

const migrateInfo = async (monitor: string): Promise<MigrateInfo> =>
  (await qmp(monitor, 'query-migrate')) as MigrateInfo;
