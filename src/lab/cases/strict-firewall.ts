/**
 * Both ends drop what their connection tracking finds INVALID, on input and on output as well: also
 * there a connection moves, a kernel that is cut off is kept waiting, and woken at once.  And none of
 * it is a connection of its own to them.
 */
import type { Case, Stage } from '../stage.js';
import { now, pause } from '../wait.js';
import { fewRetries, RETURN_MS } from './hold.js';
import { noteReturn } from './roam.js';

const ENDS = ['aramis', 'vm'] as const;
const RATE = 1e6;
/** Longer than either TCP sends again. */
const AWAY_MS = 8_000;

const FIREWALL = `table inet strict {
  chain input {
    type filter hook input priority filter
    ct state invalid counter drop
    meta l4proto tcp ct state new counter
  }
  chain output {
    type filter hook output priority filter
    ct state invalid counter drop
    meta l4proto tcp ct state new counter
  }
}
`;

export const strictFirewall: Case = {
  name: 'strict-firewall',
  summary: 'both ends drop INVALID on input and output; the VM is away for 8 s',
  options: { daemons: ENDS },
  async play(stage) {
    for (const host of ENDS) stage.lab.run(host, ['nft', '-f', '-'], FIREWALL);
    fewRetries(stage);
    const transfer = await stage.transfer();
    transfer.streams.write(RATE);
    await transfer.streams.flowing(now());
    const before = met(stage);
    stage.check('the connection was new to both', before.new === ENDS.length, text(before));
    stage.unplug();
    await pause(AWAY_MS);
    const at = stage.plug('porthos');
    await transfer.streams.flowing(at);
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
    noteReturn(stage, transfer, at);
    const tookMs = stage.figures.address_to_first_byte_ms ?? Number.NaN;
    stage.check('data flows at once', tookMs <= RETURN_MS, `${tookMs} ms after the new address`);
    const after = met(stage);
    const isSame = after.refused === before.refused && after.new === before.new;
    stage.check('on output nothing was INVALID, nothing a new connection', isSame, text(after));
  },
};

/** What the firewalls have met so far: refused on output, connections in either direction. */
function met(stage: Stage): { refused: number; new: number } {
  const packets = (rule: RegExp) =>
    ENDS.map((host) => stage.lab.run(host, ['nft', 'list', 'table', 'inet', 'strict']))
      .flatMap((rules) => [...rules.matchAll(rule)])
      .reduce((sum, [, count]) => sum + Number(count), 0);
  return {
    refused: packets(/chain output {[^}]*ct state invalid counter packets (\d+)/g),
    new: packets(/ct state new counter packets (\d+)/g),
  };
}

const text = (m: { refused: number; new: number }): string =>
  `${m.refused} INVALID on output, ${m.new} new connections`;
