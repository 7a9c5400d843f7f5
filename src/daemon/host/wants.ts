/* On which interfaces the boundary is wanted: what the configuration says, and what was asked for since,
 * which outlives the daemon as what is attached does.
 */

import { z } from 'zod';
import type { Placement } from '../../boundary/boundary.js';
import type { Config } from '../config/config.js';
import { isPattern, matchesName } from '../config/interface-pattern.js';
import { wantsPath } from '../config/run-directory.js';
import { readState, writeState } from '../config/state-file.js';
import type { Want } from './attach-plan.js';

const SHAPE: z.ZodType<Want[]> = z.array(
  z.strictObject({ pattern: z.string(), as: z.enum(['host', 'gateway', 'tap', 'none']) }),
);

export interface Found {
  interface: string;
  placement: Placement | undefined;
}

export class Wants {
  readonly #path: string;
  readonly #configured: Want[];
  #requests: Want[];

  /**
   * `found`: what is attached.  A tap that was asked for and has none is another one, of the same name.
   * All of it is wanted in the run directory of a version that noted no requests.
   */
  constructor(config: WantedByConfig, found: readonly Found[]) {
    this.#path = wantsPath(config.runDir);
    this.#configured = wantsOf(config);
    const isGone = ({ pattern, as }: Want) =>
      as === 'tap' && !found.some((each) => each.interface === pattern);
    const noted = readState(this.#path, SHAPE)?.filter((want) => !isGone(want));
    this.#requests = noted ?? found.flatMap((each) => this.#adopt(each));
  }

  /** In order; the last that matches counts. */
  all(): Want[] {
    return [...this.#configured, ...this.#requests];
  }

  /** There from now on.  Throws if that cannot be written down; it counts all the same. */
  ask(pattern: string, as: Placement): void {
    const others = this.#requests.filter((want) => want.pattern !== pattern);
    this.#note([...others, { pattern, as }]);
  }

  /** What was asked for so far, for `restore`. */
  requests(): readonly Want[] {
    return this.#requests;
  }

  /** As if nothing had been asked for since.  Throws as ask() does. */
  restore(requests: readonly Want[]): void {
    this.#note([...requests]);
  }

  /** Not there from now on.  Throws as ask() does. */
  refuse(pattern: string): void {
    const others = this.#requests.filter((want) => !matchesName(pattern, want.pattern));
    const isNamed = [...this.#configured, ...others].some(
      (want) => isPattern(want.pattern) || matchesName(pattern, want.pattern),
    );
    this.#note(isNamed ? [...others, { pattern, as: 'none' }] : others);
  }

  /** What was asked for under this very name was one thing, and that is gone: the VM behind a tap. */
  forget(name: string): void {
    const others = this.#requests.filter((want) => want.pattern !== name);
    if (others.length < this.#requests.length) this.#note(others);
  }

  /** Writes down that this is all.  Throws what the file system says. */
  save(): void {
    writeState(this.#path, this.#requests);
  }

  #note(requests: Want[]): void {
    this.#requests = requests;
    this.save();
  }

  #adopt({ interface: pattern, placement }: Found): Want[] {
    const isConfigured = this.#configured.some((want) => matchesName(want.pattern, pattern));
    return isConfigured || placement === undefined ? [] : [{ pattern, as: placement }];
  }
}

export type WantedByConfig = Pick<Config, 'runDir' | 'interfaces' | 'gateways' | 'taps'>;

const wantsOf = ({ interfaces, gateways, taps }: WantedByConfig): Want[] => [
  ...interfaces.map((pattern) => ({ pattern, as: 'host' }) as const),
  ...gateways.map((pattern) => ({ pattern, as: 'gateway' }) as const),
  ...taps.map((pattern) => ({ pattern, as: 'tap' }) as const),
];
