/**
 * Another host takes the address that the VM has left. Its kernel answers what still comes for
 * the VM with resets: they must not end the flow. The moved VM can talk to it, in either
 * direction, although the VM's kernel still holds that address for its old connections.
 */
import { address } from '../../wire/address.js';
import { seq } from '../../wire/seq.js';
import { Injector } from '../injector.js';
import { Sniffer } from '../sniffer.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, pause } from '../wait.js';

/** No address server gives an address away sooner. */
const ADDRESS_FREE_MS = 1_000;

export const stranger: Case = {
  name: 'stranger',
  summary: 'another host takes the old address; resets from there, and a talk with it',
  options: { daemons: ['aramis', 'vm'] },
  async play(stage) {
    const { lab, family } = stage;
    const old = lab.vmAddress(family, 'athos');
    const atAramis = await Sniffer.start(lab, 'aramis', family);
    const transfer = await stage.transfer();
    transfer.streams.write(1e6);
    await transfer.streams.flowing(now());

    stage.unplug();
    await pause(ADDRESS_FREE_MS);
    lab.plugStranger('athos', old);
    stage.step(`a stranger has ${old} now`);
    await atAramis.waitFor(
      'a reset from the stranger',
      (p) => p.flags.includes('R') && p.source === old && p.sourcePort === transfer.port,
    );
    stage.check('the stranger resets the flow, nobody is told', await unharmed(transfer));

    const at = stage.plug('porthos');
    await transfer.streams.flowing(at);
    stage.check('the flow goes on at porthos', await unharmed(transfer));
    await resetFromOldAddress(stage, transfer, old);
    await talk(stage, 'the VM calls the stranger', {
      client: 'vm',
      server: 'stranger',
      address: old,
    });
    await talk(stage, 'the stranger calls the VM', { client: 'stranger', server: 'vm' });
    await talk(stage, 'aramis calls the stranger', { server: 'stranger', address: old });

    await transfer.streams.flowing(now());
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
  },
};

async function unharmed(transfer: PlayedTransfer): Promise<boolean> {
  const reports = await Promise.all(transfer.streams.both.map((end) => end.report()));
  return reports.every((r) => r.errors.length === 0 && r.ended === 0);
}

/** After the move: resets for the old tuple, all over the sequence space. */
async function resetFromOldAddress(
  stage: Stage,
  transfer: PlayedTransfer,
  old: string,
): Promise<void> {
  const injector = await Injector.start(stage.lab, 'stranger');
  const flow = await stage.flow('aramis', transfer);
  const clientPort = Number(flow?.kernel.split(' > ')[0]?.split(':').at(-1));
  for (let i = 0; i < 64; i++) {
    injector.send({
      source: address(old),
      sourcePort: transfer.port,
      destination: address(stage.lab.address('aramis', stage.family)),
      destinationPort: clientPort,
      flags: 'R',
      seq: seq(i * 0x0400_0000),
      ack: seq(0),
      window: 0,
      options: [],
      payload: new Uint8Array(0),
    });
  }
  injector.stop();
  await transfer.streams.flowing(now());
  stage.check('64 resets from the old address change nothing', await unharmed(transfer));
}

async function talk(
  stage: Stage,
  name: string,
  ends: Parameters<Stage['transfer']>[0],
): Promise<void> {
  const transfer = await stage.transfer(ends);
  for (const end of transfer.streams.both) end.order({ do: 'send', bytes: 100_000 });
  const whole = await transfer.streams.finish();
  stage.check(name, whole.ok, whole.detail);
}
