/* The destination's side of a migration: answers what protocol.ts lists.
 *
 * The VM is continued on `go` and on nothing else: two-phase.ts.  Here: what comes before, and who
 * speaks when.
 */

import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { closeFd } from '../libc/socket.js';
import { Channel, RemoteError } from './channel.js';
import { checkDestination, type PlaceHere } from './destination-check.js';
import { continueVm, DestinationLog, ownQmpPath, recoverHere } from './destination-log.js';
import { giveBack, killQemus } from './discard.js';
import { fileMarkOf } from './file-mark.js';
import { type DestinationJournal, type Journals, ourMark } from './journal.js';
import {
  type CheckAnswer,
  type CheckBody,
  checkBody,
  type ExportAnswer,
  importBody,
  type PlaceAnswer,
  placeBody,
  type ReceiveAnswer,
  recoverBody,
  synchronizeBody,
  type WordAnswer,
} from './protocol.js';
import { receivingCommand } from './qemu-command.js';
import { qemusOfMigration } from './qemu-process.js';
import { Qmp } from './qmp.js';
import { ReceivingQemu } from './receiving-qemu.js';
import { makeTap, type OwnTap, stillTheirs, tapMarkOf } from './tap.js';
import type { Imported, Synchronized, VmDaemon } from './vm-daemon.js';

const LOADED_TIMEOUT_MS = 120_000;
/** The guest's driver must see that the link was down before it is up again. */
const LINK_DOWN_MS = 300;

export interface ReceiverContext {
  journals: Journals;
  daemon: VmDaemon;
  /** Makes sure that a daemon runs here. */
  startDaemon(): Promise<void>;
  /** Where a QEMU's own output goes: it outlives the migration. */
  logPath(name: string): string;
}

export class Receiver {
  readonly #o: ReceiverContext;
  #channel: Channel | undefined;
  #plan: CheckBody | undefined;
  #place: PlaceHere | undefined;
  #log: DestinationLog | undefined;
  /** Nothing may be begun any more. */
  #isOver = false;
  /** Why QEMU has refused to continue. */
  #refusal = '';
  #qemu: ReceivingQemu | undefined;
  /**
   * Held beside QEMU, until all is over: if that dies, the addresses that it had here are given back
   * by its taps.
   */
  readonly #taps = new Map<number, OwnTap>();
  /** Requests that have not come to an end: what they make must not be missed by discard. */
  readonly #working = new Set<Promise<unknown>>();

  constructor(o: ReceiverContext) {
    this.#o = o;
  }

  /** Serves one channel to its end.  Throws ChannelLost when it cannot be opened. */
  async serve(ends: {
    input: NodeJS.ReadStream;
    output: NodeJS.WriteStream;
    abandoned: Promise<string>;
  }): Promise<void> {
    const channel = await Channel.open(ends, {
      request: (name, body) => this.#request(name, body),
      stream: (name) => this.#connection(name),
    });
    this.#channel = channel;
    await Promise.race([channel.closed, ends.abandoned]);
    await this.#goOnAlone();
  }

  /* Nobody tells us any more what to do. */
  async #goOnAlone(): Promise<void> {
    this.#isOver = true;
    const phase = this.#log?.journal?.phase;
    if (phase === undefined || phase === 'prepared') return this.#giveUp('abandoned');
    await Promise.allSettled([...this.#working]);
    const alive = qemusOfMigration(this.#ours.id).length > 0;
    const word = await this.#log?.happens({ event: 'asked', alive });
    // The source may never come back, and the VM has a network all the same.
    if (word === 'running') await this.#announce();
  }

  readonly #answers: Record<string, (body: unknown) => Promise<unknown>> = {
    check: (body) => this.#check(checkBody.parse(body)),
    place: (body) => this.#placeTaps(placeBody.parse(body)),
    receive: () => this.#receive(),
    export: () => this.#export(),
    import: (body) => this.#import(importBody.parse(body)),
    synchronize: (body) => this.#synchronize(synchronizeBody.parse(body).within_ms),
    loaded: () => this.#loaded(),
    go: () => this.#go(),
    announce: () => this.#announce(),
    done: () => this.#done(),
    discard: () => this.#giveUp('taken-back'),
    recover: (body) => this.#recover(recoverBody.parse(body).id),
  };

  #request(name: string, body: unknown): Promise<unknown> {
    const answer = this.#answers[name];
    if (answer === undefined) throw new RemoteError(`no request ${name}`, 'unknown-request');
    const work = answer(body);
    this.#working.add(work);
    const finished = () => this.#working.delete(work);
    work.then(finished, finished);
    return work;
  }

  #connection(stream: string): Socket | undefined {
    const [endpoint] = stream.split('-');
    if (this.#log === undefined || (endpoint !== 'ram' && endpoint !== 'nbd')) return undefined;
    return connect(this.#socketPath(endpoint));
  }

  #socketPath(endpoint: 'ram' | 'nbd'): string {
    return join(this.#o.journals.privateDirectory(this.#ours), `${endpoint}.sock`);
  }

  get #ours(): DestinationJournal {
    const journal = this.#log?.journal;
    if (journal === undefined) throw new RemoteError('nothing was placed', 'out-of-order');
    return journal;
  }

  get #planned(): { plan: CheckBody; place: PlaceHere } {
    const [plan, place] = [this.#plan, this.#place];
    if (plan === undefined || place === undefined) {
      throw new RemoteError('nothing was checked', 'out-of-order');
    }
    return { plan, place };
  }

  async #check(body: CheckBody): Promise<CheckAnswer> {
    const { answer, place } = await checkDestination(body, this.#o);
    this.#plan = body;
    this.#place = place;
    return answer;
  }

  async #placeTaps(body: ReturnType<typeof placeBody.parse>) {
    const { plan, place } = this.#planned;
    this.#begin(plan, place);
    const answer: PlaceAnswer = { taps: {}, outside: [] };
    if (plan.placement === 'hypervisor') await this.#o.startDaemon();
    for (const { at, name, mac, isProtected, mtu } of plan.taps) {
      const tap = await makeTap(name, place.bridges.get(at) ?? '', mtu);
      this.#taps.set(at, tap);
      answer.taps[name] = tap.name;
      if (plan.placement === 'guest' || !isProtected) continue;
      this.#ours.taps.push(tapMarkOf(tap.name));
      this.#o.journals.write(this.#ours);
      await this.#o.daemon.adoptTap(tap.name, mac);
      const guest = body.guests[name];
      if (guest === undefined) throw new RemoteError(`no guest of ${name}`, 'out-of-order');
      const { outside } = await this.#o.daemon.place(tap.name, guest, body.request);
      answer.outside.push(...outside);
    }
    return answer;
  }

  #begin(plan: CheckBody, place: PlaceHere): void {
    const { id, name, taps } = plan;
    const journal: DestinationJournal = {
      ...{ version: 2, side: 'destination', id, name, owner: ourMark(), phase: 'prepared' },
      ...{ taps: [], files: [], sockets: [place.paths.get(plan.qmp) ?? plan.qmp] },
      links: plan.placement === 'guest' ? taps.flatMap(({ netdev }) => netdev ?? []) : [],
    };
    this.#o.journals.prune();
    this.#o.journals.write(journal);
    this.#o.journals.makePrivateDirectory(journal);
    this.#log = new DestinationLog(this.#o, journal, () => this.#continueVm());
  }

  async #receive(): Promise<ReceiveAnswer> {
    const { plan, place } = this.#planned;
    for (const disk of plan.disks) this.#makeDisk(disk, place.targets.get(disk.device));
    const journal = this.#ours;
    const [qmp = plan.qmp] = journal.sockets;
    journal.sockets.push(...[...place.paths.values()].filter(isSuffixed(plan.id)));
    this.#o.journals.write(journal);
    for (const path of journal.sockets) mkdirSync(dirname(path), { recursive: true });
    const ownQmp = ownQmpPath(this.#o.journals, plan.id);
    const held = [...this.#taps];
    const tapFds = new Map(held.map(([at], n) => [at, 3 + n]));
    this.#qemu = await ReceivingQemu.start({
      ...{ id: plan.id, program: plan.program, qmp: ownQmp, log: this.#makeLog(plan.name) },
      argv: receivingCommand(plan.argv, {
        ...{ machine: plan.machine, tapFds, paths: place.paths, ownQmp },
      }),
      fds: held.map(([, { fd }]) => fd),
    });
    this.#watch(this.#qemu);
    const port = await this.#qemu.listen(plan.direct ? 'tcp' : { unix: this.#socketPath('ram') });
    return { qmp, ...(port !== undefined && { port }) };
  }

  #watch(qemu: ReceivingQemu): void {
    void qemu.ended.then((why) => {
      if (this.#log?.journal?.phase === 'prepared') this.#channel?.notify('qemu-ended', { why });
    });
  }

  #makeDisk(disk: CheckBody['disks'][number], path: string | undefined): void {
    if (path === undefined) return;
    this.#makeFile(path);
    const argv = ['create', '-q', '-f', disk.format, path, String(disk.bytes)];
    const made = spawnSync('qemu-img', argv, { encoding: 'utf8' });
    if (made.status === 0) return;
    const why = made.error?.message ?? made.stderr.trim();
    throw new Error(`make disk ${path} (${disk.bytes} bytes, ${disk.format}): ${why}`);
  }

  #makeLog(name: string): string {
    const path = this.#o.logPath(name);
    if (!existsSync(path)) this.#makeFile(path);
    return path;
  }

  /* Exclusive: what the undo removes must be ours. */
  #makeFile(path: string): void {
    const fd = openSync(path, 'wx', 0o600);
    this.#ours.files.push(fileMarkOf(path, fd));
    closeSync(fd);
    this.#o.journals.write(this.#ours);
  }

  async #export(): Promise<ExportAnswer> {
    const { plan } = this.#planned;
    const devices = plan.disks.map(({ device }) => device);
    const at = plan.direct ? 'tcp' : { unix: this.#socketPath('nbd') };
    return await this.#running.exportDisks(devices, at);
  }

  get #running(): ReceivingQemu {
    if (this.#qemu === undefined) throw new RemoteError('no QEMU was started', 'out-of-order');
    return this.#qemu;
  }

  async #import(body: ReturnType<typeof importBody.parse>): Promise<Imported> {
    const sum: Imported = { imported: 0, refused: 0 };
    for (const [at, from] of Object.entries(body.flows)) {
      const { imported, refused } = await this.#o.daemon.importFlows(this.#tapHere(at), from);
      sum.imported += imported;
      sum.refused += refused;
    }
    return sum;
  }

  #tapHere(nameThere: string): string {
    const { plan } = this.#planned;
    const index = plan.taps.filter((tap) => tap.isProtected).findIndex((t) => t.name === nameThere);
    const name = this.#ours.taps[index]?.name;
    if (name === undefined) throw new RemoteError(`no tap ${nameThere}`, 'out-of-order');
    return name;
  }

  async #synchronize(withinMs: number): Promise<Synchronized> {
    const each = this.#ours.taps.map(({ name }) =>
      this.#o.daemon.synchronize(name, withinMs, true),
    );
    const sum: Synchronized = { moved: 0, failed: 0, pending: 0, failures: [] };
    for (const { moved, failed, pending, failures } of await Promise.all(each)) {
      sum.moved += moved;
      sum.failed += failed;
      sum.pending += pending;
      sum.failures.push(...failures);
    }
    return sum;
  }

  async #loaded(): Promise<void> {
    await this.#running.loaded(LOADED_TIMEOUT_MS);
    if (this.#planned.place.targets.size > 0) await this.#running.unexportDisks();
  }

  async #go(): Promise<WordAnswer> {
    await this.#running.loaded(0);
    if (this.#channel?.lost !== undefined) throw this.#channel.lost;
    if (this.#isOver) throw new RemoteError('too late: it is being taken back', 'out-of-order');
    const word = (await this.#log?.happens({ event: 'go' })) ?? 'unknown';
    if (word === 'never') this.#closeTaps();
    return { word, alive: word === 'running', why: this.#refusal };
  }

  async #continueVm(): Promise<'continued' | 'refused' | 'silent'> {
    try {
      const result = await continueVm(this.#running.qmp, this.#ours.links);
      if (result === 'continued') return result;
      this.#refusal = result.message;
      // By a second attempt nobody knows whether the first had an effect.
      return this.#isOver ? 'silent' : 'refused';
    } catch {
      return 'silent';
    }
  }

  async #announce(): Promise<void> {
    const { id, taps, links } = this.#ours;
    for (const { name } of taps) await this.#o.daemon.announce(name);
    if (links.length === 0) return;
    const qmp = this.#qemu?.qmp ?? (await Qmp.connect(ownQmpPath(this.#o.journals, id)));
    await delay(LINK_DOWN_MS);
    for (const name of links) await qmp.execute('set_link', { name, up: true });
    if (this.#qemu === undefined) qmp.close();
  }

  async #done(): Promise<void> {
    await this.#log?.happens({ event: 'done' });
    this.#closeTaps();
  }

  /* What is under way must not go on making things behind our back; without its QEMU it ends. */
  async #giveUp(event: 'abandoned' | 'taken-back'): Promise<void> {
    this.#isOver = true;
    const working = [...this.#working];
    const journal = this.#log?.journal;
    if (journal?.phase === 'committed' || journal?.phase === 'ran') {
      throw new RemoteError(`${journal.name} was continued here`, 'out-of-order');
    }
    try {
      if (journal?.phase === 'prepared') {
        await giveBack(stillTheirs(journal.taps), this.#o.daemon);
        await killQemus(journal.id);
      }
      await Promise.allSettled(working);
      await this.#log?.happens({ event });
    } finally {
      this.#closeTaps();
    }
  }

  #closeTaps(): void {
    for (const { fd } of this.#taps.values()) closeFd(fd);
    this.#taps.clear();
  }

  async #recover(id: string): Promise<WordAnswer> {
    const { word, alive, log } = await recoverHere(id, this.#o);
    this.#log = log;
    return { word, alive };
  }
}

const isSuffixed = (id: string) => (path: string) => path.endsWith(`.${id}`);
