/**
 * The cases in which one end moves while programs talk: the server or the client, once, there
 * and back, ten times, at rest, after ten seconds without a network, half-closed, a thousand
 * connections at once.
 */
import { Session } from '../session.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import type { Site } from '../topology.js';
import { now, pause, until } from '../wait.js';

const BOTH = { daemons: ['aramis', 'vm'] } as const;
const RATE = 2e6;
/** Long enough for a congestion window to open and for the link to be full of data. */
const WARM_UP_MS = 300;

export const clientMoves: Case = {
  name: 'client-moves',
  summary: 'the client is on the VM and moves; the server stays on aramis',
  options: BOTH,
  async play(stage) {
    const transfer = await stage.transfer({ client: 'vm', server: 'aramis' });
    transfer.streams.write(RATE);
    await pause(WARM_UP_MS);
    await moveAndWait(stage, transfer, 'porthos');
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
  },
};

export const moveBack: Case = {
  name: 'move-back',
  summary: 'the server moves to porthos and back to athos',
  options: BOTH,
  async play(stage) {
    const session = await Session.open(stage.lab, stage.family);
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await pause(WARM_UP_MS);
    for (const site of ['porthos', 'athos'] as const) {
      const at = await moveAndWait(stage, transfer, site);
      await session.counting(at);
      await session.type();
    }
    await stage.checkMoved('transfer', transfer, 2);
    await stage.finish('transfer', transfer);
    const { ok, detail } = await session.finish();
    stage.check('ssh session complete and in order', ok, detail);
    stage.noteSilence(session);
  },
};

export const tenMoves: Case = {
  name: 'ten-moves',
  summary: 'the server moves ten times in a row during a transfer',
  options: BOTH,
  async play(stage) {
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await pause(WARM_UP_MS);
    for (let i = 0; i < 10; i++) {
      await moveAndWait(stage, transfer, i % 2 === 0 ? 'porthos' : 'athos');
    }
    await stage.checkMoved('transfer', transfer, 10);
    await stage.finish('transfer', transfer);
  },
};

export const idle: Case = {
  name: 'idle',
  summary: 'nothing is in flight when the server moves; afterwards either side speaks first',
  options: BOTH,
  async play(stage) {
    const transfers = [await stage.transfer(), await stage.transfer()] as const;
    for (const { streams } of transfers) {
      for (const end of streams.both) end.order({ do: 'send', bytes: 10_000 });
      await streams.quiet();
    }
    stage.move('porthos');
    const names = ['client speaks first', 'server speaks first'] as const;
    for (const [i, transfer] of transfers.entries()) {
      await stage.checkMoved(names[i] ?? '', transfer, 1);
      const { client, server } = transfer.streams;
      const [first, second] = i === 0 ? [client, server] : [server, client];
      const asked = now();
      first.order({ do: 'send', bytes: 10_000 });
      await transfer.streams.flowing(asked, 10_000, [second]);
      stage.figures[`first_answer_${i === 0 ? 'client' : 'server'}_ms`] = Math.round(now() - asked);
      second.order({ do: 'send', bytes: 10_000 });
      await transfer.streams.quiet();
      await stage.finish(names[i] ?? '', transfer);
    }
  },
};

export const blackout: Case = {
  name: 'blackout',
  summary: 'ten seconds without any network while both sides write, then porthos',
  options: BOTH,
  async play(stage) {
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await pause(WARM_UP_MS);
    stage.unplug();
    await pause(10_000);
    const at = stage.plug('porthos');
    await transfer.streams.flowing(at);
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
    const usable = stage.lab.daemon('vm').addressAdded(stage.lab.vmAddress(stage.family), at) ?? at;
    const first = transfer.streams.firstByteAfter(at);
    if (first !== undefined) stage.figures.address_to_first_byte_ms = Math.round(first - usable);
  },
};

export const halfClosed: Case = {
  name: 'half-closed',
  summary: 'one side has sent FIN before the server moves; the other goes on writing',
  options: BOTH,
  async play(stage) {
    const clientDone = await stage.transfer();
    const serverDone = await stage.transfer();
    const played = [
      { name: 'client has sent FIN', transfer: clientDone, from: clientDone.streams.server },
      { name: 'server has sent FIN', transfer: serverDone, from: serverDone.streams.client },
    ];
    for (const { transfer, from } of played) {
      const { client, server } = transfer.streams;
      const to = from === client ? server : client;
      transfer.streams.write(RATE);
      await transfer.streams.flowing(now());
      to.order({ do: 'end' });
      await until('the FIN to arrive', async () => (await from.report()).ended === 1);
    }
    const at = stage.move('porthos');
    for (const { name, transfer, from } of played) {
      const { client, server } = transfer.streams;
      await transfer.streams.flowing(at + 1, 20_000, [from === client ? server : client]);
      await stage.checkMoved(name, transfer, 1);
      await stage.finish(name, transfer);
    }
  },
};

const CONNECTIONS = 1000;

export const many: Case = {
  name: 'many',
  summary: '1,000 connections of the server move at once',
  // A log line for each step of each flow would be most of the work.
  options: { ...BOTH, settings: { log: 'info' } },
  async play(stage) {
    // Each writes once a second: that is no silence yet.
    const transfer = await stage.transfer({ connections: CONNECTIONS, gapMs: 1_500 });
    transfer.streams.write(200);
    await transfer.streams.flowing(now());
    const at = stage.move('porthos');
    const vm = stage.lab.daemon('vm');
    const usable = await stage.lab.waitForAddresses('porthos', [stage.family]);
    // Not by asking the daemon again and again: each answer lists a thousand flows.
    const provenSoFar = () => vm.events.filter((e) => e.event === 'proven' && e.at_ms >= at);
    const all = () => provenSoFar().length >= CONNECTIONS;
    await until('all flows to be moved', all, 30_000).catch(() => undefined);
    const proven = provenSoFar();
    const first = vm.find('syn-sent', at)?.at_ms ?? at;
    const last = Math.max(first, ...proven.map((e) => e.at_ms));
    stage.figures.address_to_all_moved_ms = Math.round(last - usable);
    stage.figures.resynchronized_ms = Math.round(last - first);
    const { flows } = await vm.status();
    const detail = `${flows.moved} moved, ${flows.moving} moving, ${flows.legacy} legacy`;
    stage.check('all connections are moved TI flows', flows.moved === CONNECTIONS, detail);
    await transfer.streams.flowing(now());
    await stage.finish('1,000 transfers', transfer);
  },
};

/** Moves the VM and waits until the transfer flows both ways from there. Returns the moment. */
export async function moveAndWait(
  stage: Stage,
  transfer: PlayedTransfer,
  site: Site,
): Promise<number> {
  const before = (await stage.flow('vm', transfer))?.moves ?? 0;
  const at = stage.move(site);
  const moved = async () => ((await stage.flow('vm', transfer))?.moves ?? 0) > before;
  await until('the flow to be moved', moved, 20_000);
  const back = await transfer.streams.flowing(now());
  stage.step(`the transfer flows again ${(back - at).toFixed(0)} ms after the cable was pulled`);
  return at;
}
