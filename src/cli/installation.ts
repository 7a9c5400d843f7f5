/* What is up in a run directory, asked of the daemon or, when it is dead, read from what is
 * pinned.
 */

import { FLOW_FLAG, type Flow, PLACE_FLAG } from '../boundary/abi.gen.js';
import type { Boundary } from '../boundary/boundary.js';
import type { DaemonClient } from '../daemon/api/client.js';
import { flowIsAlive } from '../daemon/view/flow-views.js';
import type { FlowView, StatusView } from '../daemon/view/view.js';
import { interfaceIndex } from '../libc/socket.js';
import { tupleText } from '../wire/tuple.js';

export interface Installation {
  attached(): string[];
  /** Kernel tuples of flows that need the boundary on these interfaces, or on any. */
  movedOn(names: readonly string[] | undefined): string[];
  /** Taps, of these or of all, whose VMs are away from home: they have no network without it. */
  awayOn(names: readonly string[] | undefined): string[];
  detach(name: string): Promise<void>;
  /** False if there was no daemon to stop. */
  stopDaemon(): Promise<boolean>;
  /** Gives up what is open here; may be repeated. */
  close(): void;
}

export async function installationOf(
  runDir: string,
  client: DaemonClient | undefined,
): Promise<Installation> {
  if (client !== undefined) {
    return served(client, await client.status(), (await client.flows()).flows);
  }
  const { Boundary } = await import('../boundary/boundary.js');
  return Boundary.exists(runDir) ? pinned(Boundary.open({ runDir })) : NOTHING;
}

/** Nothing is up, or nothing is known of it. */
export const NOTHING: Installation = {
  attached: () => [],
  movedOn: () => [],
  awayOn: () => [],
  detach: async () => undefined,
  stopDaemon: async () => false,
  close: () => undefined,
};

function served(client: DaemonClient, status: StatusView, flows: FlowView[]): Installation {
  const moved = flows.filter(needsBoundary);
  return {
    attached: () => [
      ...status.interfaces.filter((link) => link.attached).map((link) => link.name),
      ...status.taps.map((vm) => vm.name),
    ],
    movedOn: (names) => {
      const elsewhere = new Set(
        status.interfaces
          .filter((link) => names !== undefined && !names.includes(link.name))
          .flatMap((link) => link.addresses),
      );
      // A flow whose wire address is nowhere now may come back on any interface.
      return moved
        .filter(({ tap, wire }) =>
          tap === null ? !elsewhere.has(localAddress(wire)) : (names?.includes(tap) ?? true),
        )
        .map((flow) => flow.kernel);
    },
    awayOn: (names) =>
      status.taps
        .filter(({ name, place }) => place === 'away' && (names?.includes(name) ?? true))
        .map(({ name }) => name),
    detach: (name) => client.detach(name),
    stopDaemon: async () => {
      // VMs are told, and give their addresses back, as long as there is somebody to do it.
      for (const { name } of status.taps) await client.detachTap(name);
      await client.shutdown();
      return true;
    },
    close: () => undefined,
  };
}

function pinned(boundary: Boundary): Installation {
  const taps = boundary.attached('tap');
  const attached = [...boundary.attached(), ...taps];
  // Without the daemon nobody knows which interface a wire uses: all of them count.
  const moved = boundary.flows().filter(([, flow]) => livesOnBoundary(flow));
  let open = true;
  return {
    attached: () => attached,
    movedOn: () => moved.map(([kernel]) => tupleText(kernel)),
    awayOn: (names = taps) => taps.filter((tap) => names.includes(tap) && isAway(boundary, tap)),
    detach: async (name) => boundary.detach(name, taps.includes(name) ? 'tap' : 'host'),
    stopDaemon: async () => false,
    close: () => {
      if (open) boundary.close();
      open = false;
    },
  };
}

function isAway(boundary: Boundary, tap: string): boolean {
  const index = interfaceIndex(tap);
  const place = index === undefined ? undefined : boundary.place(index);
  return place !== undefined && (place.flags & PLACE_FLAG.AWAY) !== 0;
}

function livesOnBoundary(flow: Flow): boolean {
  return flowIsAlive(flow) && (flow.moves > 0 || (flow.flags & FLOW_FLAG.HELD) !== 0);
}

/* A flow that is on its way has lost its address already: it has nothing else to live on. */
function needsBoundary(flow: FlowView): boolean {
  if (flow.state === 'ended' || flow.state === 'legacy') return false;
  return flow.moves > 0 || (flow.state !== 'steady' && flow.state !== 'stuck');
}

/** The address of the local end of "192.0.2.10:22 > ..." or "[2001:db8::1]:22 > ...". */
function localAddress(tuple: string): string {
  const [local = ''] = tuple.split(' > ');
  return local.slice(0, local.lastIndexOf(':')).replace(/^\[|\]$/g, '');
}
