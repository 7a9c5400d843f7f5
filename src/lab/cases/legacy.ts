/**
 * The cases in which the far end has no boundary. Plain TCP works as if there were no tiflow;
 * after a move the program on the VM is told within the configured time, not after a quarter of
 * an hour.
 */
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, until } from '../wait.js';

const GIVE_UP_S = 3;
/** For DHCP before, and for the daemon's own timers after, the time it is given. */
const SLACK_MS = 2_000;
const OPTIONS = { daemons: ['vm'], settings: { give_up: `${GIVE_UP_S}s` } } as const;

export const legacyClient: Case = {
  name: 'legacy-client',
  summary: 'the client on aramis has no tiflow; the server moves',
  options: OPTIONS,
  play: (stage) => play(stage, 'server', { client: 'aramis', server: 'vm' }),
};

export const legacyServer: Case = {
  name: 'legacy-server',
  summary: 'the server on aramis has no tiflow; the client moves',
  options: OPTIONS,
  play: (stage) => play(stage, 'client', { client: 'vm', server: 'aramis' }),
};

async function play(
  stage: Stage,
  moving: 'client' | 'server',
  ends: Pick<PlayedTransfer, 'client' | 'server'>,
): Promise<void> {
  const whole = await stage.transfer(ends);
  whole.streams.write(2e6);
  await whole.streams.flowing(now());
  await stage.finish('plain TCP', whole);

  const stranded = await stage.transfer(ends);
  stranded.streams.write(1e6);
  await stranded.streams.flowing(now());
  await checkReason(stage, stranded);
  const at = stage.move('porthos');
  await checkTold(stage, stranded, moving, at);

  const fresh = await stage.transfer(ends);
  fresh.streams.write(1e6);
  await fresh.streams.flowing(now());
  await stage.finish('a new connection from the new place', fresh);
}

async function checkReason(stage: Stage, transfer: PlayedTransfer): Promise<void> {
  const flow = await stage.flow('vm', transfer);
  const ok = flow?.state === 'legacy' && flow.reason === 'peer-plain';
  stage.check(
    'the flow is legacy and says why',
    ok,
    flow ? `${flow.state}, ${flow.reason}` : 'no flow',
  );
  const status = await stage.lab.daemon('vm').status();
  const counted = status.flows.legacy >= 1 && (status.legacy_by_reason['peer-plain'] ?? 0) >= 1;
  stage.check('status counts it by reason', counted, JSON.stringify(status.legacy_by_reason));
}

async function checkTold(
  stage: Stage,
  transfer: PlayedTransfer,
  moving: 'client' | 'server',
  movedAt: number,
): Promise<void> {
  const usable = await stage.lab.waitForAddresses('porthos', [stage.family]);
  const bound = GIVE_UP_S * 1e3 + SLACK_MS;
  const error = await until(
    'an error at the program on the VM',
    async () => (await transfer.streams[moving].report()).errors[0],
    bound + usable - movedAt,
  ).catch(() => undefined);
  const took = error ? Math.round(error.at_ms - usable) : Number.NaN;
  const detail = error
    ? `${error.code} ${took} ms after the new address`
    : `nothing in ${bound} ms`;
  stage.check(`the program is told within ${GIVE_UP_S} s`, took <= bound, detail);
  for (const end of transfer.streams.both) end.stop();
}
