/*
 * Who may connect has a flow, and may claim new addresses for it: only addresses on which that flow
 * could be, and none that anybody else talks on.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sniffer } from '../../src/lab/sniffer.js';
import { now, until } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { type Ends, Field, type Insider, STRANGER, skip } from './field.js';

const field = new Field();
const bound = { skip, timeout: 60_000 };

/** Of a connection that nobody bothers; the retransmission of a lost segment takes 200 ms. */
const SILENCE_MAX_MS = 1_500;

for (const family of [4, 6] as const) {
  test(`one spoofed TI_SYNC stalls no plain connection (IPv${family})`, bound, async () => {
    const insider = await field.insider(family);
    const victim = await field.plain(family);
    const since = now();
    await field.send('aramis', await insider.claim(victim.ends));
    await judged(since);
    await victim.streams.flowing(now(), SILENCE_MAX_MS);
    await unmoved(insider);
    const whole = await victim.streams.finish();
    assert.ok(whole.ok, whole.detail);
    insider.own.streams.stop();
  });
}

test('a new connection from a claimed tuple is let in', bound, async () => {
  const insider = await field.insider();
  const answers = await Sniffer.start(field.lab, 'stranger', 4);
  const ends = {
    ...{ source: address(STRANGER[4]), sourcePort: 23_456 },
    ...{ destination: address(field.lab.vmAddress(4)), destinationPort: insider.own.port },
  };
  const since = now();
  const claim = await insider.claim(ends);
  await field.send('aramis', claim);
  await judged(since);
  await field.send('stranger', { ...claim, seq: seq(1), options: [{ kind: 'mss', mss: 1400 }] });
  const isAnswer = (p: Packet): boolean => p.flags.startsWith('SA') && p.ack === 2;
  await answers.waitFor('the answer of the server', isAnswer, 0, SILENCE_MAX_MS);
  answers.stop();
  insider.own.streams.stop();
});

test('a flow is not claimed for another address family', bound, async () => {
  const insider = await field.insider();
  await refused(insider, {
    source: address(field.lab.address('aramis', 6)),
    sourcePort: 7777,
    destination: address(field.lab.vmAddress(6)),
    destinationPort: insider.own.port,
  });
});

test('nor from an address that is nobody', bound, async () => {
  const insider = await field.insider();
  for (const source of ['127.0.0.1', '224.0.0.251', '255.255.255.255', '192.0.2.255']) {
    const destination = address(field.lab.vmAddress(4));
    const ends = { source: address(source), sourcePort: 7778, destination };
    await refused(insider, { ...ends, destinationPort: insider.own.port }, 'stranger');
  }
});

/** Whether the flow is claimed so shows in what the daemon of the VM says of it. */
async function refused(insider: Insider, ends: Ends, from: 'aramis' | 'stranger' = 'aramis') {
  const since = now();
  await field.send(from, await insider.claim(ends));
  assert.equal(await judged(since), 'refused');
  await unmoved(insider);
}

/** The daemon of the VM has looked at a claim. */
const judged = (since: number): Promise<string> =>
  until('the claim to be judged', () => {
    const daemon = field.lab.daemon('vm');
    return (daemon.find('refused', since) ?? daemon.find('candidate', since))?.event;
  });

async function unmoved(insider: Insider): Promise<void> {
  const flow = await field.stage.flow('vm', insider.own);
  assert.equal(flow?.moves, 0);
}
