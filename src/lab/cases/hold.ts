/**
 * The VM is away for longer than either kernel would keep its sockets: because data is not
 * acknowledged (tcp_retries2), because keepalives are not answered. And how it ends when it stays
 * away for good.
 */
import type { Lab } from '../lab.js';
import { writeSysctls } from '../namespace.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import { now, pause, until } from '../wait.js';
import { noteReturn } from './roam.js';

const BOTH = { daemons: ['aramis', 'vm'] } as const;
const RATE = 1e6;
/** Three retransmissions: TCP by itself gives up after 3 to 7 s. */
const RETRIES = '3';
/** libuv's keepalive gives up after 11 s. */
const AWAY_MS = 20_000;
/**
 * Sooner than any timer of a kernel (TCP_RTO_MIN): it was woken. 12 to 14 ms on a machine at rest;
 * how soon exactly is for `make bench`.
 */
export const RETURN_MS = 200;

export const holdRetries: Case = {
  name: 'hold-retries',
  summary: 'away for longer than either TCP sends again: the sockets are kept, data flows at once',
  options: BOTH,
  async play(stage) {
    fewRetries(stage);
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await transfer.streams.flowing(now());
    const at = await away(stage);
    await transfer.streams.flowing(at);
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
    checkReturn(stage, transfer, at);
  },
};

export const holdKeepalive: Case = {
  name: 'hold-keepalive',
  summary: 'away at rest for longer than either kernel’s keepalives wait for an answer',
  options: BOTH,
  async play(stage) {
    const transfer = await stage.transfer();
    for (const end of transfer.streams.both) {
      end.order({ do: 'keep-alive' });
      end.order({ do: 'send', bytes: 10_000 });
    }
    await transfer.streams.quiet();
    const at = await away(stage);
    await stage.checkMoved('transfer', transfer, 1);
    for (const end of transfer.streams.both) end.order({ do: 'send', bytes: 10_000 });
    await transfer.streams.flowing(at);
    await stage.finish('transfer', transfer);
  },
};

export const outage: Case = {
  name: 'outage',
  summary:
    'the path swallows everything for some seconds, twice, while both ends write; nobody moves',
  options: BOTH,
  async play(stage) {
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    for (const outageMs of OUTAGES_MS) {
      await transfer.streams.flowing(now());
      swallow(stage.lab, true);
      await pause(outageMs);
      swallow(stage.lab, false);
      await transfer.streams.flowing(now());
    }
    await stage.finish('transfer', transfer);
  },
};

/* Both daemons answer in the other's stead after a second. */
const OUTAGES_MS = [3_000, 6_000];
const SWALLOW = `table inet swallow {
  chain forward {
    type filter hook forward priority filter
    drop
  }
}
`;

/** Whether the router swallows all that it is to forward. */
export function swallow(lab: Lab, on: boolean): void {
  if (on) lab.run('router', ['nft', '-f', '-'], SWALLOW);
  else lab.run('router', ['nft', 'delete', 'table', 'inet', 'swallow']);
}

/* Longer than TCP by itself sends its last bytes again (RETRIES). */
const TAIL_MS = 9_000;

export const halfClosedTail: Case = {
  name: 'half-closed-tail',
  summary:
    'the client has sent FIN; the last bytes and the FIN of the server are lost, and it moves',
  options: BOTH,
  async play(stage) {
    fewRetries(stage);
    const transfer = await stage.transfer();
    const { client, server, both } = transfer.streams;
    for (const end of both) end.order({ do: 'send', bytes: 50_000 });
    await transfer.streams.quiet();
    client.order({ do: 'end' });
    await until('the FIN to arrive', async () => (await server.report()).ended === 1);
    swallow(stage.lab, true);
    for (const what of [{ do: 'send', bytes: 10_000 }, { do: 'end' }] as const) server.order(what);
    const hasWritten = async () => (await server.report()).written === 60_000;
    await until('the last bytes to be written', hasWritten);
    await pause(TAIL_MS);
    stage.move('porthos');
    swallow(stage.lab, false);
    await stage.finish('transfer', transfer);
    // Over at both ends, it stays for a minute, for packets that are late.
    for (const host of ['aramis', 'vm'] as const) {
      const flow = await stage.flow(host, transfer);
      stage.check(`${host}: moved, and over`, flow?.moves === 1, `${flow?.state} ${flow?.moves}`);
    }
  },
};

const HOLD_S = 10;

export const holdOver: Case = {
  name: 'hold-over',
  summary: 'away for good: the program at the other end is told when `hold` is over',
  options: { ...BOTH, settings: { hold: `${HOLD_S}s` } },
  async play(stage) {
    fewRetries(stage);
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await transfer.streams.flowing(now());
    const at = stage.unplug();
    const errorOf = async () => (await transfer.streams.client.report()).errors[0];
    const error = await until('an error at the program on aramis', errorOf, 20_000);
    const took = Math.round(error.at_ms - at);
    const isInTime = took >= HOLD_S * 1e3 && took < HOLD_S * 1e3 + 2_000;
    stage.check('the program is told in time', isInTime, `${error.code} after ${took} ms`);
    const told = stage.lab.daemon('aramis').find('flow-reset', at);
    stage.check('with the reason', told?.reason === 'peer-silent', told?.reason);
    for (const end of transfer.streams.both) end.stop();
  },
};

/** TCP by itself gives up after 3 to 7 s at both ends. */
export function fewRetries({ lab }: Stage): void {
  for (const host of ['aramis', 'vm'] as const) {
    writeSysctls(lab.namespaces[host], { 'ipv4/tcp_retries2': RETRIES });
  }
}

async function away(stage: Stage): Promise<number> {
  stage.unplug();
  await pause(AWAY_MS);
  return stage.plug('porthos');
}

function checkReturn(stage: Stage, transfer: PlayedTransfer, plugged: number): void {
  noteReturn(stage, transfer, plugged);
  const tookMs = stage.figures.address_to_first_byte_ms ?? Number.NaN;
  stage.check('data flows at once', tookMs <= RETURN_MS, `${tookMs} ms after the new address`);
}
