/* The destination's side of a migration: answers what protocol.ts lists.
 *
 * The commit rule.  The VM is continued on `go` and on nothing else.  `go` is written down before
 * it is done; whoever finds the channel lost and no `go` written down, discards.
 */

import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { closeFd } from '../libc/socket.js';
import { Channel, RemoteError } from './channel.js';
import { checkDestination, type PlaceHere } from './destination-check.js';
import { discard, giveBack, killQemus } from './discard.js';
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
  type RecoverAnswer,
  recoverBody,
  synchronizeBody,
} from './protocol.js';
import { receivingCommand } from './qemu-command.js';
import { Qmp } from './qmp.js';
import { ReceivingQemu } from './receiving-qemu.js';
import { recoverHere } from './recover-here.js';
import { makeTap, type OwnTap } from './tap.js';
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
  #journal: DestinationJournal | undefined;
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
    if (this.#journal === undefined || this.#journal.go === 'none') await this.#giveUp();
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
    done: async () => this.#done(),
    discard: () => this.#giveUp(),
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
    if (this.#journal === undefined || (endpoint !== 'ram' && endpoint !== 'nbd')) return undefined;
    return connect(this.#socketPath(endpoint));
  }

  #socketPath(endpoint: 'ram' | 'nbd'): string {
    return join(this.#o.journals.privateDirectory(this.#ours), `${endpoint}.sock`);
  }

  get #ours(): DestinationJournal {
    if (this.#journal === undefined) throw new RemoteError('nothing was placed', 'out-of-order');
    return this.#journal;
  }

  get #planned(): { plan: CheckBody; place: PlaceHere } {
    const [plan, place] = [this.#plan, this.#place];
    if (plan === undefined || place === undefined) {
      throw new RemoteError('nothing was checked', 'out-of-order');
    }
    return { plan, place };
  }

  async #check(body: CheckBody): Promise<CheckAnswer> {
    const { answer, place } = await checkDestination(body);
    this.#plan = body;
    this.#place = place;
    return answer;
  }

  async #placeTaps(body: ReturnType<typeof placeBody.parse>) {
    const { plan, place } = this.#planned;
    this.#begin(plan, place);
    const answer: PlaceAnswer = { taps: {}, outside: [] };
    if (plan.placement === 'hypervisor') await this.#o.startDaemon();
    for (const { at, name, mac, isProtected } of plan.taps) {
      const tap = await makeTap(name, place.bridges.get(at) ?? '');
      this.#taps.set(at, tap);
      answer.taps[name] = tap.name;
      if (plan.placement === 'guest' || !isProtected) continue;
      this.#ours.taps.push(tap.name);
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
    this.#journal = {
      ...{ version: 1, side: 'destination', id, name, owner: ourMark(), taps: [], go: 'none' },
      qmp: place.paths.get(plan.qmp) ?? plan.qmp,
      links: plan.placement === 'guest' ? taps.flatMap(({ netdev }) => netdev ?? []) : [],
      files: [],
    };
    this.#o.journals.write(this.#journal);
    mkdirSync(this.#o.journals.privateDirectory(this.#journal), { mode: 0o700 });
  }

  async #receive(): Promise<ReceiveAnswer> {
    const { plan, place } = this.#planned;
    for (const disk of plan.disks) this.#makeDisk(disk, place.targets.get(disk.device));
    const log = this.#o.logPath(plan.name);
    const journal = this.#ours;
    journal.files.push(journal.qmp, ...[...place.paths.values()].filter(isSuffixed(plan.id)));
    if (!existsSync(log)) journal.files.push(log);
    this.#o.journals.write(journal);
    const held = [...this.#taps];
    const tapFds = new Map(held.map(([at], n) => [at, 3 + n]));
    this.#qemu = await ReceivingQemu.start({
      ...{ id: plan.id, program: plan.program, qmp: journal.qmp, log },
      argv: receivingCommand(plan.argv, { machine: plan.machine, tapFds, paths: place.paths }),
      fds: held.map(([, { fd }]) => fd),
    });
    this.#watch(this.#qemu);
    const port = await this.#qemu.listen(plan.direct ? 'tcp' : { unix: this.#socketPath('ram') });
    return { qmp: journal.qmp, ...(port !== undefined && { port }) };
  }

  #watch(qemu: ReceivingQemu): void {
    void qemu.ended.then((why) => {
      if (this.#journal?.go === 'none') this.#channel?.notify('qemu-ended', { why });
    });
  }

  #makeDisk(disk: CheckBody['disks'][number], path: string | undefined): void {
    if (path === undefined) return;
    // Exclusive: what the undo removes must be ours.
    closeSync(openSync(path, 'wx', 0o600));
    this.#ours.files.push(path);
    this.#o.journals.write(this.#ours);
    const argv = ['create', '-q', '-f', disk.format, path, String(disk.bytes)];
    const made = spawnSync('qemu-img', argv, { encoding: 'utf8' });
    if (made.status === 0) return;
    const why = made.error?.message ?? made.stderr.trim();
    throw new Error(`make disk ${path} (${disk.bytes} bytes, ${disk.format}): ${why}`);
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
    const name = this.#ours.taps[index];
    if (name === undefined) throw new RemoteError(`no tap ${nameThere}`, 'out-of-order');
    return name;
  }

  async #synchronize(withinMs: number): Promise<Synchronized> {
    const each = this.#ours.taps.map((tap) => this.#o.daemon.synchronize(tap, withinMs, true));
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

  /* Nothing may come between the journal and QEMU: from the first line on, a lost channel discards
   * nothing any more.
   */
  async #go(): Promise<void> {
    const qemu = this.#running;
    await qemu.loaded(0);
    if (this.#channel?.lost !== undefined) throw this.#channel.lost;
    this.#ours.go = 'received';
    this.#o.journals.write(this.#ours);
    try {
      for (const name of this.#ours.links) await qemu.qmp.execute('set_link', { name, up: false });
      await qemu.qmp.execute('cont');
    } catch (cause) {
      // Killed for certain, so that the source may go on.
      await this.#discard();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new RemoteError(`continue the VM here: ${why}`, 'not-running');
    }
  }

  async #announce(): Promise<void> {
    for (const tap of this.#ours.taps) await this.#o.daemon.announce(tap);
    if (this.#ours.links.length === 0) return;
    const qmp = this.#qemu?.qmp ?? (await Qmp.connect(this.#ours.qmp));
    await delay(LINK_DOWN_MS);
    for (const name of this.#ours.links) await qmp.execute('set_link', { name, up: true });
    if (this.#qemu === undefined) qmp.close();
  }

  #done(): void {
    this.#o.journals.remove(this.#ours);
    this.#journal = undefined;
    this.#closeTaps();
  }

  /* What is under way must not go on making things behind our back; without its QEMU it ends. */
  async #giveUp(): Promise<void> {
    const working = [...this.#working];
    if (this.#journal !== undefined) {
      await giveBack(this.#journal.taps, this.#o.daemon);
      await killQemus(this.#journal.id);
    }
    await Promise.allSettled(working);
    await this.#discard();
  }

  async #discard(): Promise<void> {
    try {
      if (this.#journal === undefined) return;
      await discard(this.#o.journals, this.#journal, this.#o.daemon);
      this.#journal = undefined;
    } finally {
      this.#closeTaps();
    }
  }

  #closeTaps(): void {
    for (const { fd } of this.#taps.values()) closeFd(fd);
    this.#taps.clear();
  }

  async #recover(id: string): Promise<RecoverAnswer> {
    const { state, journal } = await recoverHere(id, this.#o);
    this.#journal = journal;
    return { state };
  }
}

const isSuffixed = (id: string) => (path: string) => path.endsWith(`.${id}`);
