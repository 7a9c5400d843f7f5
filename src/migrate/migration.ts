/* A migration as the source drives it: the table of its stages.
 *
 *   check → address → receive → storage → memory → pause → export → import → continue │ announce → release
 *   the VM runs here ────────────────────►│ it is stopped                    commit │ it runs there
 *
 * The order is the point: the guest's address at the destination is there before the switch-over,
 * and its flows are synchronized while the rest of the VM is still on its way.
 */

import { ChannelLost } from './channel.js';
import type { Progress, StageName } from './event.js';
import { Forwarder } from './forward.js';
import { type Journals, ourMark, type SourceJournal } from './journal.js';
import { Mirrors, type NbdServer } from './mirror.js';
import { hasEnded } from './process-mark.js';
import type {
  CheckAnswer,
  ExportAnswer,
  PlaceAnswer,
  ReceiveAnswer,
  WordAnswer,
} from './protocol.js';
import type { Qmp } from './qmp.js';
import {
  askThere,
  commit,
  discardThere,
  releaseSource,
  resumeHere,
  type SourceSide,
} from './recovery.js';
import { connectRemote, type Remote } from './remote.js';
import { type MigrateInfo, progressOf, type SourceQemu, VmError } from './source-qemu.js';
import { aborted, type Stage } from './stages.js';
import { type MigrationRequest, type Survey, survey } from './survey.js';
import { tapMarkOf } from './tap.js';
import type { Exported, Synchronized, VmDaemon } from './vm-daemon.js';

const ANSWER_MS = 20_000;
/** An address by DHCP, or the start of a QEMU on a busy machine. */
const PREPARE_MS = 60_000;
const LOADED_MS = 150_000;
const DISCARD_MS = 15_000;
/** Flows whose peers are farther away are moved when the VM runs already. */
const SYNCHRONIZE_WITHIN_MS = 1_000;
const RECONNECT_MS = 60_000;
const DIED_WITHIN_MS = 2_000;

export interface MigrationContext {
  request: MigrationRequest;
  journals: Journals;
  daemon: VmDaemon;
  progress(stage: StageName, at: Progress): void;
  /** What the operator should know, and that keeps nothing from going on. */
  note(text: string): void;
  /** Somebody who recovers from the journal if we die. */
  startGuard(id: string, qmp: Qmp): void;
  reconnectMs?: number;
}

/** What is known at the end, however it ended. */
export interface Facts {
  name?: string;
  placement?: 'hypervisor' | 'guest';
  there?: CheckAnswer;
  outside?: string[];
  qmp?: string;
  memory?: MigrateInfo;
  disk_bytes?: number;
  paused_ms?: number;
  flows?: Synchronized;
  /** The VM has run there, and has ended since. */
  ended_there?: boolean;
}

export class Migration {
  readonly facts: Facts = {};
  readonly #o: MigrationContext;
  #survey: Survey | undefined;
  #remote: Remote | undefined;
  #journal: SourceJournal | undefined;
  #forwarder: Forwarder | undefined;
  #receiving: ReceiveAnswer | undefined;
  #mirrors: Mirrors | undefined;
  #stoppedAt: number | undefined;
  #flows: Record<string, Exported> = {};
  #synchronizing: Promise<void> | undefined;
  #isDiscarded = false;
  #isAnnounced = false;

  constructor(o: MigrationContext) {
    this.#o = o;
  }

  readonly stages: Stage<StageName>[] = [
    { name: 'check', run: () => this.#check() },
    { name: 'address', run: (signal) => this.#address(signal), undo: () => this.#discard() },
    { name: 'receive', run: (signal) => this.#receive(signal) },
    { name: 'storage', run: (signal) => this.#storage(signal) },
    { name: 'memory', run: (signal) => this.#memory(signal), undo: () => this.#resume() },
    { name: 'pause', run: () => this.#pause() },
    { name: 'export', run: () => this.#export() },
    { name: 'import', run: (signal) => this.#import(signal), undo: () => this.#discardNow() },
    { name: 'continue', run: () => this.#continue(), point: 'commit' },
    { name: 'announce', run: () => this.#announce(), point: 'after' },
    { name: 'release', run: () => this.#release(), point: 'after' },
  ];

  /** Gives up what is open.  `isOver`: nothing of the migration is left to be recovered. */
  async close(isOver: boolean): Promise<void> {
    this.#forwarder?.close();
    this.#survey?.source.qmp.close();
    await this.#remote?.close();
    if (isOver && this.#journal !== undefined) this.#o.journals.remove(this.#journal);
  }

  get journal(): SourceJournal | undefined {
    return this.#journal;
  }

  async #check(): Promise<void> {
    const { request, journals, daemon } = this.#o;
    const found = await survey(request, daemon);
    this.#survey = found;
    for (const text of found.notes) this.#o.note(text);
    const { name, placement } = found.body;
    Object.assign(this.facts, { name, placement });
    const { mark } = found.source.qemu;
    const other = journals.unfinished().find(({ qemu }) => qemu.pid === mark.pid);
    if (other !== undefined && other.qemu.started === mark.started) {
      const advice = `first: tiflow migrate --recover ${other.id}`;
      throw new VmError(`migration ${other.id} of ${name} has not come to an end; ${advice}`);
    }
    const { host, rsh, tiflow } = request;
    this.#remote = await connectRemote({ host, rsh, tiflow });
    const answer = await this.#ask<CheckAnswer>('check', found.body, PREPARE_MS);
    this.facts.there = answer;
    if (answer.problems.length === 0) return;
    throw new VmError(`${host} cannot take ${name}: ${answer.problems.join('; ')}`);
  }

  async #address(signal: AbortSignal): Promise<void> {
    const { request, journals, daemon } = this.#o;
    const { source, body, protectedTaps: taps } = this.#known;
    const { host, rsh, tiflow } = request;
    this.#journal = {
      ...{ version: 2, side: 'source', id: request.id, owner: ourMark(), name: body.name },
      ...{ remote: { host, rsh, tiflow }, qemu: source.qemu.mark, qmp: source.qmp.path },
      ...{ taps: taps.map(tapMarkOf), interfaces: [...source.taps.values()].map(tapMarkOf) },
      ...{ flows: 'here', phase: 'prepared' },
    };
    // First the guard: a journal that nobody looks after would be there for ever.
    this.#o.startGuard(request.id, source.qmp);
    journals.write(this.#journal);
    const guests: Record<string, unknown> = {};
    for (const tap of taps) guests[tap] = await daemon.guest(tap);
    const asked = { request: request.addresses, guests };
    const { outside } = await this.#ask<PlaceAnswer>('place', asked, PREPARE_MS, signal);
    this.facts.outside = outside;
  }

  async #receive(signal: AbortSignal): Promise<void> {
    const { journals } = this.#o;
    const directory = journals.makePrivateDirectory(this.#side.journal);
    this.#forwarder = new Forwarder(directory, this.#known.source.qemu, this.#there.channel);
    this.#receiving = await this.#ask<ReceiveAnswer>('receive', {}, PREPARE_MS, signal);
    this.facts.qmp = this.#receiving.qmp;
  }

  async #storage(signal: AbortSignal): Promise<void> {
    const { storage, bandwidth } = this.#o.request;
    const { source, disks } = this.#known;
    if (storage === 'shared' || disks.length === 0) return;
    const { exports, port } = await this.#ask<ExportAnswer>('export', {}, ANSWER_MS, signal);
    const server: NbdServer =
      port === undefined
        ? { type: 'unix', path: await this.#near.listen('nbd') }
        : { type: 'inet', host: this.#address4Tcp, port: String(port) };
    this.#mirrors = new Mirrors(source.qmp);
    const named = disks.map(({ device, path }) => ({
      device,
      path,
      export: exports[device] ?? '',
    }));
    await this.#mirrors.start(named, server, bandwidth);
    const progress = (at: Progress) => {
      this.facts.disk_bytes = at.total_bytes;
      this.#o.progress('storage', at);
    };
    await this.#mirrors.ready({ signal, progress, failed: this.#qemuGone });
  }

  async #memory(signal: AbortSignal): Promise<void> {
    const { mode, bandwidth, downtimeMs } = this.#o.request;
    const { source } = this.#known;
    const port = this.#receiving?.port;
    const uri =
      port === undefined
        ? `unix:${await this.#near.listen('ram')}`
        : `tcp:${this.#address4Tcp}:${port}`;
    source.qmp.onEvent(({ event }) => {
      if (event === 'STOP') this.#stoppedAt = performance.now();
    });
    if (mode === 'pause-and-copy') {
      await this.#freeze();
      await source.stop();
    }
    await source.migrate({
      uri,
      ...(bandwidth !== undefined && { bandwidth }),
      ...(downtimeMs !== undefined && { downtimeMs }),
    });
    const progress = (info: MigrateInfo) => {
      this.#mirrors?.check();
      if (info.ram !== undefined) this.#o.progress('memory', progressOf(info.ram, info));
    };
    await source.migrationReaches('pre-switchover', { signal, progress, failed: this.#qemuGone });
  }

  /* While the VM can still acknowledge: it will be gone for as long as its memory takes.  A live
   * migration's pause is shorter than the round trips that this takes.
   */
  async #freeze(): Promise<void> {
    const { journal, journals, daemon } = this.#side;
    if (journal.taps.length === 0) return;
    journal.flows = 'frozen';
    journals.write(journal);
    await Promise.all(journal.taps.map(({ name }) => daemon.freeze(name)));
  }

  async #pause(): Promise<void> {
    const status = await this.#known.source.status();
    if (status !== 'finish-migrate' && status !== 'paused') {
      throw new VmError(`${this.#known.body.name} should be stopped now and is ${status}`);
    }
    await this.#mirrors?.finish();
  }

  async #export(): Promise<void> {
    const { journal, journals, daemon } = this.#side;
    if (journal.taps.length === 0) return;
    // Before it is so: whoever recovers must release them, held or not.
    journal.flows = 'exported';
    journals.write(journal);
    for (const { name } of journal.taps) this.#flows[name] = await daemon.exportFlows(name);
  }

  async #import(signal: AbortSignal): Promise<void> {
    const { journal, journals } = this.#side;
    if (journal.taps.length === 0) return;
    await this.#ask('import', { flows: this.#flows }, PREPARE_MS, signal);
    journal.flows = 'moved';
    journals.write(journal);
    const body = { within_ms: SYNCHRONIZE_WITHIN_MS };
    const asked = this.#ask<Synchronized>('synchronize', body, SYNCHRONIZE_WITHIN_MS + ANSWER_MS);
    this.#synchronizing = asked.then((flows) => {
      this.facts.flows = flows;
    });
    this.#synchronizing.catch(() => undefined); // Looked at when it is waited for.
  }

  async #continue(): Promise<void> {
    const { source } = this.#known;
    await source.continueMigration();
    await Promise.all([this.#sent(source), this.#ask('loaded', {}, LOADED_MS)]);
    await this.#synchronizing;
    await this.#go();
    if (this.#stoppedAt !== undefined) this.facts.paused_ms = performance.now() - this.#stoppedAt;
  }

  /* A source that dies now has sent everything, if the destination says that it is loaded. */
  async #sent(source: SourceQemu): Promise<void> {
    const signal = new AbortController().signal;
    try {
      const failed = this.#qemuGone;
      this.facts.memory = await source.migrationReaches('completed', { signal, failed });
    } catch (error) {
      if (source.qmp.closed === undefined) throw error;
      if (!(await hasEnded(source.qemu.mark, DIED_WITHIN_MS))) throw error;
    }
  }

  async #go(): Promise<void> {
    const { word, why, remote } = await commit(this.#side, {
      go: () => this.#ask<WordAnswer>('go', {}, ANSWER_MS),
      giveUp: () => this.#there.close(),
    });
    if (remote !== undefined) this.#remote = remote;
    this.facts.ended_there = word === 'ran';
    if (word !== 'never') return;
    throw new VmError(`the VM does not run on ${this.#o.request.host}: ${why}`);
  }

  async #announce(): Promise<void> {
    if (this.facts.ended_there !== true) await this.#askRunning('announce');
    this.#isAnnounced = true;
    // QEMU has said "completed" before it had worked out how long it took; it may have died since.
    const { source } = this.#known;
    if (source.qmp.closed !== undefined) return;
    const memory = await source.migration().catch(() => undefined);
    if (memory !== undefined) this.facts.memory = memory;
  }

  async #release(): Promise<void> {
    await releaseSource(this.#side);
    // Else the destination must know of it still when `--recover` makes up for that.
    if (this.#isAnnounced) await this.#askRunning('done');
  }

  /* After the commit a lost channel is opened again. */
  async #askRunning(name: 'announce' | 'done'): Promise<void> {
    try {
      await this.#ask(name, {}, ANSWER_MS);
    } catch (error) {
      if (!(error instanceof ChannelLost)) throw error;
      await this.#there.close();
      const { remote, word } = await askThere(this.#side);
      this.#remote = remote;
      this.facts.ended_there = word === 'ran';
      // "unknown" after `done`: that has got there.
      if (word === 'running' || (word === 'ran' && name === 'done')) {
        await this.#ask(name, {}, ANSWER_MS);
      }
    }
  }

  async #resume(): Promise<void> {
    await resumeHere(this.#side);
  }

  /* What has been synchronized there must be forgotten before it is synchronized back; but a VM
   * does not stay stopped for a destination that cannot be reached.
   */
  async #discardNow(): Promise<void> {
    if (this.#isDiscarded || this.#there.channel.lost !== undefined) return;
    await this.#ask('discard', {}, DISCARD_MS);
    this.#isDiscarded = true;
  }

  async #discard(): Promise<void> {
    if (this.#isDiscarded || this.#journal === undefined) return;
    try {
      await this.#ask('discard', {}, DISCARD_MS);
    } catch (error) {
      if (!(error instanceof ChannelLost)) throw error;
      await this.#there.close();
      await discardThere(this.#side);
    }
    this.#isDiscarded = true;
  }

  get #known(): Survey {
    if (this.#survey === undefined) throw new VmError('the VM is not known yet');
    return this.#survey;
  }

  get #there(): Remote {
    if (this.#remote === undefined) throw new VmError('there is no channel yet');
    return this.#remote;
  }

  get #near(): Forwarder {
    if (this.#forwarder === undefined) throw new VmError('nothing is forwarded yet');
    return this.#forwarder;
  }

  get #side(): SourceSide {
    const { journals, daemon, reconnectMs = RECONNECT_MS } = this.#o;
    if (this.#journal === undefined) throw new VmError('nothing has begun yet');
    const { qmp } = this.#known.source;
    return { journals, journal: this.#journal, daemon, reconnectMs, qmp };
  }

  get #address4Tcp(): string {
    const host = this.#o.request.host.replace(/^.*@/, '');
    return host.includes(':') ? `[${host}]` : host;
  }

  get #qemuGone(): Promise<never> {
    const gone = this.#there.qemuEnded.then((why): never => {
      throw new VmError(why);
    });
    gone.catch(() => undefined); // Whoever still waits for it hears it.
    return gone;
  }

  #ask<T>(name: string, body: object, timeoutMs: number, signal?: AbortSignal): Promise<T> {
    const answer = this.#there.channel.request<T>(name, body, timeoutMs);
    if (signal === undefined) return answer;
    answer.catch(() => undefined); // If it comes too late.
    return Promise.race([answer, aborted(signal)]);
  }
}
