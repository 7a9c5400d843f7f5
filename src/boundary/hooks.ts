/*
 * On which interfaces the boundary is, and what of it: asked of the kernel, kept, and asked again where
 * somebody says that it has changed.
 */
import { interfaceIndex, interfaceName, interfaces } from '../libc/socket.js';
import { Netlink } from '../netlink/netlink.js';
import { allHooks, attach, detach, type Hook, hookOf, isLost, type TcPrograms } from './attach.js';
import { programInfo } from './libbpf.js';
import type { DataPlane } from './load.js';
import type { Filter } from './traffic-control.js';

/**
 * Where a boundary sits: on an interface of this machine, whose network is outside, for its own
 * connections alone, or as a gateway for those of other hosts as well; or on the tap of a VM,
 * whose guest is inside.
 */
export type Placement = 'host' | 'gateway' | 'tap';

/** What is of ours on an interface. */
export interface Attached {
  index: number;
  interface: string;
  /** undefined: what nobody has in hand any more, or of each direction something else. */
  placement: Placement | undefined;
}

/* What takes the place of what: of a VM more is known than the programs on its tap. */
const EXCHANGED: Record<Placement, readonly Placement[]> = {
  host: ['host', 'gateway'],
  gateway: ['host', 'gateway'],
  tap: ['host', 'gateway', 'tap'],
};

/** The names that a placement's programs have in the data plane begin so. */
const PREFIXES = { host: 'boundary', gateway: 'gateway', tap: 'tap' } as const;
const PLACEMENTS: readonly Placement[] = ['host', 'gateway', 'tap'];

/** What was at our place of an interface when we looked. */
interface Seen {
  interface: string;
  hook: Hook;
  /** Programs in our hands, or in nobody's. */
  ours: boolean;
}

/** Descriptors of programs by placement; what is on the interfaces of this network namespace. */
export class Hooks {
  readonly #programs: Record<Placement, TcPrograms>;
  readonly #ids: Record<Placement, TcPrograms>;
  readonly #netlink = new Netlink();
  /** By interface index. */
  #seen = new Map<number, Seen>();

  constructor(programs: Record<Placement, TcPrograms>) {
    this.#programs = programs;
    this.#ids = idsOf(programs);
    this.look();
  }

  /**
   * Puts the boundary on an interface.  No-op if it is there; a host's becomes a gateway's and the
   * other way round.  Throws SystemError.
   */
  attach(interfaceName: string, placement: Placement = 'host'): void {
    const exchanged = EXCHANGED[placement].flatMap((each) => Object.values(this.#ids[each]));
    try {
      attach(this.#netlink, interfaceName, this.#programs[placement], (id) =>
        exchanged.includes(id),
      );
    } finally {
      this.#lookAt(interfaceName);
    }
  }

  /** Takes off what is of ours, or of nobody.  No-op if there is none.  Throws SystemError. */
  detach(interfaceName: string, placement?: Placement): void {
    const ids = placementsOf(placement).flatMap((each) => Object.values(this.#ids[each]));
    try {
      detach(
        this.#netlink,
        interfaceName,
        (filter) => ids.includes(filter.programId) || isLost(filter),
      );
    } finally {
      this.#lookAt(interfaceName);
    }
  }

  /**
   * Looks again at what is on an interface, or on all.  Between two looks all answers are those of the
   * last one.
   */
  look(index?: number): void {
    if (index === undefined) {
      const hooks = allHooks(this.#netlink);
      this.#seen = new Map();
      for (const { index: i, name } of interfaces()) this.#note(i, name, hooks.get(i));
    } else {
      this.#note(index, interfaceName(index), hookOf(this.#netlink, index));
    }
  }

  /** Where something of ours is, also if a former daemon attached it, whole or in part. */
  everywhere(): Attached[] {
    return [...this.#seen].flatMap(([index, { interface: name, hook, ours }]) => {
      const placement = PLACEMENTS.find((each) => carries(hook, this.#ids[each], 'both'));
      return ours ? [{ index, interface: name, placement }] : [];
    });
  }

  /**
   * The interfaces that it is on, also if a former daemon attached it.  Without a placement: those
   * of this machine, be it as a host or as a gateway.
   */
  attached(placement?: Placement): string[] {
    const ids = placementsOf(placement).map((each) => this.#ids[each]);
    return [...this.#seen.values()]
      .filter(({ hook }) => ids.some((pair) => carries(hook, pair, 'one')))
      .map((each) => each.interface);
  }

  /** Puts programs in the place of former ones, wherever those are.  Throws SystemError. */
  replace(placement: Placement, former: TcPrograms): void {
    const ids = idsOfPair(former);
    for (const { interface: name, hook } of [...this.#seen.values()]) {
      if (!carries(hook, ids, 'one')) continue;
      attach(this.#netlink, name, this.#programs[placement], (id) =>
        Object.values(ids).includes(id),
      );
      this.#lookAt(name);
    }
  }

  close(): void {
    this.#netlink.close();
  }

  #lookAt(name: string): void {
    const index = interfaceIndex(name);
    if (index !== undefined) this.look(index);
  }

  #note(index: number, name: string | undefined, hook: Hook | undefined): void {
    if (name === undefined || hook === undefined) {
      this.#seen.delete(index);
      return;
    }
    const filters = [hook.egress, hook.ingress].filter((f) => f !== undefined);
    const ids = Object.values(this.#ids).flatMap((pair) => Object.values(pair));
    const ours = filters.some((f) => ids.includes(f.programId) || isLost(f));
    this.#seen.set(index, { interface: name, hook, ours });
  }
}

const placementsOf = (placement: Placement | undefined): Placement[] =>
  placement === undefined ? ['host', 'gateway'] : [placement];

/** Of a set that may be another version's. */
export function pairsOf(programs: Partial<DataPlane['programs']>): [Placement, TcPrograms][] {
  return PLACEMENTS.flatMap((placement) => {
    const egress = programs[`${PREFIXES[placement]}_egress`];
    const ingress = programs[`${PREFIXES[placement]}_ingress`];
    return egress === undefined || ingress === undefined ? [] : [[placement, { egress, ingress }]];
  });
}

export const tcPrograms = (programs: DataPlane['programs']): Record<Placement, TcPrograms> => ({
  host: { egress: programs.boundary_egress, ingress: programs.boundary_ingress },
  gateway: { egress: programs.gateway_egress, ingress: programs.gateway_ingress },
  tap: { egress: programs.tap_egress, ingress: programs.tap_ingress },
});

const idsOfPair = ({ egress, ingress }: TcPrograms): TcPrograms => ({
  egress: programInfo(egress).id,
  ingress: programInfo(ingress).id,
});

const idsOf = (programs: Record<Placement, TcPrograms>): Record<Placement, TcPrograms> => ({
  host: idsOfPair(programs.host),
  gateway: idsOfPair(programs.gateway),
  tap: idsOfPair(programs.tap),
});

/** Whether the programs with these ids are on a hook: one of them, or both. */
function carries(hook: Hook, ids: TcPrograms, how: 'one' | 'both'): boolean {
  const egress = hook.egress?.programId === ids.egress;
  const ingress = hook.ingress?.programId === ids.ingress;
  return how === 'one' ? egress || ingress : egress && ingress;
}

/** Takes off what is ours, everywhere. */
export function detachAll(isOurs: (filter: Filter) => boolean): void {
  const netlink = new Netlink();
  try {
    const hooks = allHooks(netlink);
    for (const { index, name } of interfaces()) {
      const hook = hooks.get(index);
      const filters = [hook?.egress, hook?.ingress].filter((f) => f !== undefined);
      if (filters.some(isOurs)) detach(netlink, name, isOurs);
    }
  } finally {
    netlink.close();
  }
}
