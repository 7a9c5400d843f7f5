/**
 * A laptop (the VM) behind a NAT, its server on the internet (aramis):
 *
 *     aramis ──── router ──┬── athos    NAT ── vm
 *                          └── porthos  NAT ┄┄ (where it goes)
 *
 * It goes from one NAT to another; sleeps in between, for longer than the server's TCP waits by
 * itself; stays where it is while the NAT reboots or gets another address: the flow stalls, and is
 * synchronized again from the same address.
 */
import { writeSysctls } from '../namespace.js';
import { disconnectNat, reconnectNat, setNatKind } from '../nat.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, pause, until } from '../wait.js';
import { moveAndWait } from './moves.js';

const RATE = 5e5;
const OPTIONS = { daemons: ['aramis', 'vm'], nat: 'loose' } as const;
const ENDS = { client: 'vm', server: 'aramis' } as const;

export const roamNat: Case = {
  name: 'roam-nat',
  summary: 'a laptop goes from behind one NAT to behind another, and back',
  options: OPTIONS,
  async play(stage) {
    const transfer = await busy(stage);
    await moveAndWait(stage, transfer, 'porthos');
    await stage.checkMoved('behind another NAT', transfer, 1);
    await moveAndWait(stage, transfer, 'athos');
    await stage.checkMoved('and back', transfer, 2);
    await stage.finish('transfer', transfer);
  },
};

/** Five retransmissions: TCP by itself gives up after 13 to 26 s (tcp_retries2). */
const RETRIES = '5';
const ASLEEP_MS = 35_000;

export const roamSleep: Case = {
  name: 'roam-sleep',
  summary: 'a laptop sleeps for longer than its server would wait, and wakes behind another NAT',
  options: OPTIONS,
  async play(stage) {
    const { lab } = stage;
    writeSysctls(lab.namespaces.aramis, { 'ipv4/tcp_retries2': RETRIES });
    const transfer = await busy(stage);
    stage.unplug();
    const programs = [...lab.running('vm', 'daemon'), ...lab.running('vm', 'stream')];
    for (const { pid } of programs) process.kill(pid, 'SIGSTOP');
    stage.step('the laptop is asleep, its server writes on');
    await pause(ASLEEP_MS);
    const at = stage.plug('porthos');
    for (const { pid } of programs) process.kill(pid, 'SIGCONT');
    await transfer.streams.flowing(at);
    await stage.checkMoved('awake again', transfer, 1);
    await stage.finish('transfer', transfer);
    noteReturn(stage, transfer, at);
  },
};

export const natReboot: Case = {
  name: 'nat-reboot',
  summary: 'the NAT forgets its connections: a busy one stalls, one at rest is met by a reset',
  options: OPTIONS,
  async play(stage) {
    const transfer = await busy(stage);
    const resting = await stage.transfer(ENDS);
    resting.streams.client.order({ do: 'send', bytes: 10_000 });
    await resting.streams.quiet();
    await reboot(stage, transfer, { moves: 1, as: 'before' });
    const asked = now();
    resting.streams.client.order({ do: 'send', bytes: 10_000 });
    await resting.streams.flowing(asked, 10_000, [resting.streams.server]);
    stage.figures.first_answer_ms = Math.round(now() - asked);
    await stage.checkMoved('at rest', resting, 1);
    await stage.finish('at rest', resting);
    setNatKind(stage.lab, 'athos', 'strict');
    stage.step('from now on the NAT lets only a SYN make an entry');
    await reboot(stage, transfer, { moves: 2, as: 'before' });
    await stage.finish('transfer', transfer);
  },
};

export const natRenumbered: Case = {
  name: 'nat-renumbered',
  summary: 'the NAT gets another address while the laptop stays where it is',
  options: OPTIONS,
  async play(stage) {
    const transfer = await busy(stage);
    await reboot(stage, transfer, { moves: 1, as: 'other' });
    const view = await stage.flow('aramis', transfer);
    const remote = view?.wire.split(' > ')[1] ?? 'none';
    const fresh = stage.family === 4 ? '10.0.1.3:' : '[2001:db8:f1::3]:';
    stage.check('the server sends to the new address', remote.startsWith(fresh), remote);
    await stage.finish('transfer', transfer);
  },
};

async function busy(stage: Stage): Promise<PlayedTransfer> {
  const transfer = await stage.transfer(ENDS);
  transfer.streams.write(RATE);
  await transfer.streams.flowing(now());
  return transfer;
}

/** No reboot is quicker. */
const REBOOT_MS = 1_000;

/** The NAT goes and comes; the flow goes on from the same address, as its n-th move. */
async function reboot(
  stage: Stage,
  transfer: PlayedTransfer,
  { moves, as }: { moves: number; as: 'before' | 'other' },
): Promise<void> {
  const before = await addressOf(stage, transfer);
  disconnectNat(stage.lab, 'athos');
  stage.moves.push(now());
  await pause(REBOOT_MS);
  reconnectNat(stage.lab, 'athos', as);
  const at = now();
  const moved = async () => (await stage.flow('vm', transfer))?.moves === moves;
  await until('the flow to be synchronized again', moved, 30_000);
  await transfer.streams.flowing(now());
  stage.step(`the transfer flows again ${Math.round(now() - at)} ms after the NAT is back`);
  await stage.checkMoved('synchronized again', transfer, moves);
  const after = await addressOf(stage, transfer);
  stage.check('from the same address', after === before, after);
}

/** The laptop's own address of the connection. */
async function addressOf(stage: Stage, transfer: PlayedTransfer): Promise<string | undefined> {
  const view = await stage.flow('vm', transfer);
  return view?.wire.split(' > ')[0]?.replace(/:\d+$/, '');
}

/** From when the new address is usable to the first byte at a program. */
export function noteReturn(stage: Stage, transfer: PlayedTransfer, plugged: number): void {
  const { lab, family } = stage;
  const usable = lab.daemon('vm').addressAdded(lab.vmAddress(family), plugged) ?? plugged;
  const first = transfer.streams.firstByteAfter(plugged);
  if (first === undefined) return;
  stage.figures.address_to_first_byte_ms = Math.round(first - usable);
}
