/* What is up in a run directory, asked of the daemon or, when it is dead, read from what is
 * pinned.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DaemonClient } from '../daemon/client.js';
import type { FlowView, StatusView } from '../daemon/view.js';

export interface Installation {
  attached(): string[];
  /** Kernel tuples of flows that need the boundary on these interfaces, or on any. */
  movedOn(names: readonly string[] | undefined): string[];
  detach(name: string): Promise<void>;
  /** False if there was no daemon to stop. */
  stopDaemon(): Promise<boolean>;
  close(): void;
}

export async function installationOf(
  runDir: string,
  client: DaemonClient | undefined,
): Promise<Installation> {
  if (client !== undefined) {
    return served(client, await client.status(), (await client.flows()).flows);
  }
  return existsSync(join(runDir, 'bpf')) ? await pinned(runDir) : NOTHING;
}

const NOTHING: Installation = {
  attached: () => [],
  movedOn: () => [],
  detach: async () => undefined,
  stopDaemon: async () => false,
  close: () => undefined,
};

function served(client: DaemonClient, status: StatusView, flows: FlowView[]): Installation {
  const moved = flows.filter(needsBoundary);
  return {
    attached: () => status.interfaces.filter((link) => link.attached).map((link) => link.name),
    movedOn: (names) => {
      const addresses = status.interfaces
        .filter((link) => names?.includes(link.name) ?? true)
        .flatMap((link) => link.addresses);
      return moved
        .filter((flow) => names === undefined || addresses.includes(localAddress(flow.wire)))
        .map((flow) => flow.kernel);
    },
    detach: (name) => client.detach(name),
    stopDaemon: async () => {
      await client.shutdown();
      return true;
    },
    close: () => undefined,
  };
}

async function pinned(runDir: string): Promise<Installation> {
  const { Boundary } = await import('../boundary/boundary.js');
  const { tupleText } = await import('../wire/tuple.js');
  const boundary = Boundary.open({ runDir });
  const attached = boundary.attached();
  // Without the daemon nobody knows which interface a wire uses: all of them count.
  const moved = boundary.flows().filter(([, flow]) => flow.moves > 0);
  return {
    attached: () => attached,
    movedOn: () => moved.map(([kernel]) => tupleText(kernel)),
    detach: async (name) => boundary.detach(name),
    stopDaemon: async () => false,
    close: () => boundary.close(),
  };
}

/* A flow that is on its way has lost its address already: it has nothing else to live on. */
function needsBoundary(flow: FlowView): boolean {
  if (flow.state === 'ended' || flow.state === 'legacy') return false;
  return flow.moves > 0 || flow.state !== 'steady';
}

/** The address of the local end of "192.0.2.10:22 > ..." or "[2001:db8::1]:22 > ...". */
function localAddress(tuple: string): string {
  const [local = ''] = tuple.split(' > ');
  return local.slice(0, local.lastIndexOf(':')).replace(/^\[|\]$/g, '');
}
