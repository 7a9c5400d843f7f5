/**
 * Where SYNs with our option are dropped: the destination is remembered, so that only the first
 * connections are late, and forgotten again, because firewalls are replaced.
 */
import type { Stage } from '../stage.js';
import { now, until } from '../wait.js';

/** Without the option a handshake here takes some ms; with it two lost SYNs, 1 s each. */
const LOST_SYNS_MS = 2_000;

/** After one connection from aramis to the VM has made the destination suspect. */
export async function checkMemory(stage: Stage): Promise<void> {
  const confirmed = await call(stage);
  stage.check(
    'one such connection could be bad luck: the second tries the option again',
    confirmed.reason === 'syn-lost' && confirmed.tookMs >= LOST_SYNS_MS,
    `${confirmed.reason} after ${confirmed.tookMs} ms`,
  );
  const remembered = await call(stage);
  stage.check(
    'the next connection goes without the option, and is not late',
    remembered.reason === 'peer-remembered' && remembered.tookMs < LOST_SYNS_MS,
    `${remembered.reason} after ${remembered.tookMs} ms`,
  );
  const again = await until('the destination to be forgotten', async () => {
    const next = await call(stage);
    return next.reason !== 'peer-remembered' && next;
  });
  stage.check(
    'after plain_peer_ttl it is tried again',
    again.reason === 'syn-lost' && again.tookMs >= LOST_SYNS_MS,
    `${again.reason} after ${again.tookMs} ms`,
  );
}

/** How long a whole transfer takes to open, and what became of it at the client. */
async function call(stage: Stage): Promise<{ reason: string | undefined; tookMs: number }> {
  const begun = now();
  const transfer = await stage.transfer({ family: 4 });
  const tookMs = Math.round(now() - begun);
  const flow = await stage.flow('aramis', transfer);
  transfer.streams.stop();
  return { reason: flow?.reason ?? undefined, tookMs };
}
