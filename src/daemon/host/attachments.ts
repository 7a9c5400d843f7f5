/* Keeps the boundary where it is wanted: on links that come late, go and come again, or whose clsact
 * somebody else has taken away.
 *
 *   wants ──┐
 *           ├─► attach-plan.ts ─► attach, detach, pin
 *   seen ───┘   links (monitor), hooks (boundary), default routes, pins
 */

import type { Attached, Placement } from '../../boundary/boundary.js';
import { ERRNO, SystemError } from '../../libc/errno.js';
import { attempt } from '../../libc/guard.js';
import type { LinkChange, LinkMonitor } from '../../link/monitor.js';
import type { Clock } from '../../sync/clock.js';
import { DEFAULT_ROUTE, isPattern } from '../config/interface-pattern.js';
import type { MissingView, PlanView } from '../view/view.js';
import {
  type AttachPlan,
  type AttachStep,
  type ObservedLink,
  planAttachments,
} from './attach-plan.js';
import { Reconciler } from './reconciler.js';
import type { Wants } from './wants.js';

/* A routing table can be large, and change all the time. */
const REST_FACTOR = 20;

/** What of the boundary this needs. */
export interface AttachedBoundary {
  attach(name: string, placement: Placement): void;
  detach(name: string): void;
  look(index?: number): void;
  everywhere(): Attached[];
  isPinned(): boolean;
  pinAgain(): void;
}

export interface AttachmentsOptions {
  boundary: AttachedBoundary;
  monitor: Pick<LinkMonitor, 'links' | 'catchUp'>;
  wants: Wants;
  clock: Clock;
  /** The links that have a default route, by index. */
  defaultLinks: () => ReadonlySet<number>;
  /** A VM is behind this tap from now on. */
  attachTap: (name: string) => void;
  /** Takes leave of the VM behind this tap, and its boundary off then. */
  detachTap: (name: string) => void;
  /** How many flows live only by the boundary there: they have moved, or are held. */
  flowsOn: (name: string) => number;
  /** To be told what was done. */
  done: (event: 'attached' | 'detached', name: string) => void;
  warn: (message: string, error?: Error) => void;
}

export class Attachments {
  readonly #o: AttachmentsOptions;
  readonly #reconciler: Reconciler<AttachStep>;
  #pinned = true;
  #mayBreak = false;
  #said: ReadonlySet<string> = new Set();
  #defaults: ReadonlySet<number> = new Set();
  #areDefaultsOld = true;
  #defaultsRestUntil = 0;

  constructor(o: AttachmentsOptions) {
    this.#o = o;
    this.#reconciler = new Reconciler({
      clock: o.clock,
      look: () => this.#look(),
      plan: () => this.#planAndSay(),
      apply: (step) => this.#apply(step),
      refused: (step, error) => this.#refused(step, error),
    });
  }

  /** Does what there is to do now.  Throws where the process itself may not. */
  now(): void {
    this.#look();
    this.#reconciler.now();
  }

  /** To be called with each change that the monitor sees. */
  changed(change: LinkChange): void {
    switch (change.type) {
      case 'hook-changed':
        this.#o.boundary.look(change.index);
        this.#reconciler.soon();
        break;
      case 'link-removed':
        attempt(() => this.#forgetTap(change.interface));
        this.#lookAt(change);
        break;
      case 'link-added':
        this.#lookAt(change);
        break;
      case 'route-changed':
        if (!this.#wanted().includes(DEFAULT_ROUTE)) break;
        this.#areDefaultsOld = true;
        this.#reconciler.soon();
    }
  }

  /**
   * Wants it there, now and whenever it comes.  Throws SystemError, and wants what it did before, if it is a
   * name and cannot be had now.
   */
  ask(pattern: string, as: Placement): void {
    this.#o.monitor.catchUp();
    const before = this.#o.wants.requests();
    const isTap = as === 'host' && this.#link(pattern)?.vmTap;
    attempt(() => this.#o.wants.ask(pattern, isTap ? 'tap' : as));
    this.#reconciler.now(pattern);
    const refusal = isPattern(pattern) ? undefined : this.#refusalOf(pattern);
    if (refusal === undefined) return;
    attempt(() => this.#o.wants.restore(before));
    this.#reconciler.now();
    throw refusal;
  }

  /**
   * Wants it there no more, whatever lives by it: whoever asks has looked.  Throws SystemError if nothing is
   * called so.
   */
  refuse(pattern: string): void {
    const known = [...this.#o.monitor.links().map(({ name }) => name), ...this.#wanted()];
    if (!isPattern(pattern) && !known.includes(pattern)) throw absent(`detach ${pattern}`);
    attempt(() => this.#o.wants.refuse(pattern));
    this.#mayBreak = true;
    try {
      this.#reconciler.anew();
    } finally {
      this.#mayBreak = false;
    }
  }

  /** Where a boundary is wanted and is not. */
  missing(): MissingView[] {
    const { steps, missing } = this.#plan();
    const refused = steps.flatMap((step) => {
      if (step.do !== 'attach') return [];
      const why = this.#reconciler.refusalOf(step)?.message ?? step.because;
      return [{ name: step.interface, gateway: step.as === 'gateway', why }];
    });
    return [...missing, ...refused];
  }

  /** Looks at all of it; the plan of this moment, which is carried out next. */
  view(): PlanView {
    this.#look();
    this.#reconciler.soon();
    return this.#reconciler.view();
  }

  close(): void {
    this.#reconciler.close();
  }

  #refusalOf(name: string): SystemError | undefined {
    const { steps, missing } = this.#plan();
    const step = steps.find((each) => each.do === 'attach' && each.interface === name);
    if (step !== undefined) return this.#reconciler.refusalOf(step);
    const why = missing.find((each) => each.name === name)?.why;
    if (why === undefined) return undefined;
    const attempted = `attach boundary to ${name}`;
    if (this.#link(name) === undefined) return absent(attempted);
    return new SystemError(attempted, ERRNO.EBUSY, { hint: why });
  }

  #link(name: string): ObservedLink | undefined {
    return this.#o.monitor.links().find((link) => link.name === name);
  }

  #wanted(): string[] {
    return this.#o.wants.all().map(({ pattern }) => pattern);
  }

  /* Its VM is gone: another one may get a tap of this name. */
  #forgetTap(name: string): void {
    const want = this.#o.wants.all().findLast(({ pattern }) => pattern === name);
    if (want?.as === 'tap') this.#o.wants.forget(name);
  }

  /* Its index may have been that of another one. */
  #lookAt({ index, interface: name }: { index: number; interface: string }): void {
    this.#o.boundary.look(index);
    this.#reconciler.soon(name);
  }

  #look(): void {
    this.#o.monitor.catchUp();
    this.#o.boundary.look();
    this.#pinned = this.#o.boundary.isPinned();
    this.#areDefaultsOld = true;
  }

  #plan(): AttachPlan {
    const { wants, monitor, boundary } = this.#o;
    return planAttachments(wants.all(), {
      links: monitor.links(),
      attached: boundary.everywhere(),
      defaults: this.#defaultLinks(),
      pinned: this.#pinned,
    });
  }

  /* What cannot be had is said when it begins to be so. */
  #planAndSay(): AttachStep[] {
    const { steps, missing } = this.#plan();
    const before = this.#said;
    this.#said = new Set(missing.map(({ name, why }) => `${name} is not protected: ${why}`));
    for (const text of this.#said) if (!before.has(text)) this.#o.warn(text);
    return steps;
  }

  #defaultLinks(): ReadonlySet<number> {
    const { clock, defaultLinks } = this.#o;
    if (!this.#wanted().includes(DEFAULT_ROUTE)) return new Set();
    const startedAt = clock.now();
    if (this.#areDefaultsOld && startedAt >= this.#defaultsRestUntil) {
      this.#defaults = defaultLinks();
      this.#areDefaultsOld = false;
      const tookMs = clock.now() - startedAt;
      this.#defaultsRestUntil = clock.now() + REST_FACTOR * tookMs;
    }
    return this.#defaults;
  }

  #apply(step: AttachStep): void {
    const { boundary } = this.#o;
    switch (step.do) {
      case 'pin':
        boundary.pinAgain();
        this.#pinned = true;
        break;
      case 'attach':
        if (step.as === 'tap') this.#o.attachTap(step.interface);
        boundary.attach(step.interface, step.as);
        this.#o.done('attached', step.interface);
        break;
      case 'detach':
        if (step.as === 'tap') {
          this.#o.detachTap(step.interface);
          return;
        }
        this.#refuseToBreak(step.interface);
        boundary.detach(step.interface);
        this.#o.done('detached', step.interface);
    }
  }

  /* A line that is gone from the configuration is not meant to end connections. */
  #refuseToBreak(name: string): void {
    const count = this.#mayBreak ? 0 : this.#o.flowsOn(name);
    if (count === 0) return;
    throw new SystemError(`detach boundary from ${name}`, ERRNO.EBUSY, {
      hint: `${count} flows have moved and would break: \`tiflow down ${name} --force\` resets them`,
    });
  }

  #refused(step: AttachStep, error: SystemError): void {
    const what =
      step.do === 'attach' ? `${step.interface} is not protected` : `${step.do} was refused`;
    this.#o.warn(`${what}: ${error.message}`, error);
  }
}

const absent = (attempted: string): SystemError =>
  new SystemError(attempted, ERRNO.ENODEV, { hint: 'no such interface; `ip link` lists them' });
