/*
 * Destinations that lose SYNs with TI_OPEN: when one is taken for plain, and what clears it.
 * PROTOCOL.md, section "Initiator".
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { address } from '../../src/wire/address.js';
import { seq } from '../../src/wire/seq.js';
import {
  DataPlane,
  FAMILIES,
  type Family,
  freshTuple,
  PEER_OPEN,
  type View,
} from './data-plane.js';

const plane = new DataPlane();
after(() => plane.remove());

/** Runs a test for both families. */
function both(name: string, run: (f: Family) => void): void {
  for (const f of FAMILIES) test(`${name} (IPv${f})`, () => run(f));
}

both('a destination is remembered after the second connection that lost its SYNs', (f) => {
  const [first, together, next, last] = [0, 1, 2, 3].map(() => lossy(f, 20)) as Quad;
  const opened = sendSyn(first);
  const openedTogether = sendSyn(together);
  loseSyns(first, opened);
  // It left before the first was lost: the same outage, perhaps.
  loseSyns(together, openedTogether);
  loseSyns(next, sendSyn(next));
  const remembered = plane.expect(last, 'out', SYN, 'same');
  assert.deepEqual(remembered.counted, ['peer-remembered']);
});

both('any answer to a SYN with TI_OPEN clears the destination', (f) => {
  for (const _ of ['once', 'again']) {
    const lost = lossy(f, 21);
    loseSyns(lost, sendSyn(lost));
    const answered = lossy(f, 21);
    sendSyn(answered);
    plane.expect(answered, 'in', SYN_ACK, 'same');
  }
});

both('a SYN/ACK with TI_OPEN clears the destination, however late', (f) => {
  for (const _ of ['once', 'twice', 'again']) {
    const view = lossy(f, 22);
    loseSyns(view, sendSyn(view), `SA 0:0(0) ack 1 win 1 <mss 1460,${PEER_OPEN}>`);
  }
});

const SYN = 'S 0:0(0) win 1 <mss 1460>';
const SYN_ACK = 'SA 0:0(0) ack 1 win 1 <mss 1460>';
type Quad = [View, View, View, View];

/** A connection to a destination of a test's own. */
const lossy = (f: Family, host: number): View => ({
  iss: seq(0xffffff00),
  irs: seq(1000),
  tuple: {
    ...freshTuple(f),
    remote: address(f === 4 ? `203.0.113.${host}` : `2001:db8:3::${host}`),
  },
});

/** The first SYN of a connection; returns what became of it: it has the option. */
function sendSyn(view: View): string {
  const opened = `S 0:0(0) win 1 <mss 1460,${plane.stockHalf()}>`;
  plane.expect(view, 'out', SYN, opened);
  return opened;
}

/** The second SYN, the third, which has no option, and what answers that one. */
function loseSyns(view: View, opened: string, answer = SYN_ACK): void {
  plane.expect(view, 'out', SYN, opened);
  plane.expect(view, 'out', SYN, 'same');
  const outcome = plane.expect(view, 'in', answer, 'same');
  assert.deepEqual(outcome.counted, ['syn-lost']);
}
