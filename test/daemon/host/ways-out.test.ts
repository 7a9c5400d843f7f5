/* Packets of the daemon pass netfilter by where a boundary takes them on, and only there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonOutlet } from '../../../src/daemon/flows/outlet.js';
import { WaysOut } from '../../../src/daemon/host/ways-out.js';
import { type Address, address } from '../../../src/wire/address.js';
import { parsePacketLine } from '../../../src/wire/notation.js';
import { encodePacket } from '../../../src/wire/packet.js';
import type { Tuple } from '../../../src/wire/tuple.js';

const NEAR = address('198.51.100.7');
const OTHER = address('192.0.2.7');
const FAR = address('203.0.113.7');
const KERNEL: Tuple = { local: NEAR, remote: FAR, localPort: 22, remotePort: 40_000 };

function setUp(o: { attached: string[] }) {
  const sent: string[] = [];
  let looked = 0;
  let now = 0;
  const ways = new WaysOut({
    routes: {
      from: (source: Address, to: Address) => {
        if (to !== FAR) return undefined;
        return { source, interface: source === NEAR ? 'eth0' : 'eth1' };
      },
    },
    attached: () => {
      looked += 1;
      return o.attached;
    },
    indexOf: (name) => ({ eth0: 2, eth1: 3 })[name],
    nowMs: () => now,
  });
  const frame = (how: string) => (index: number, bytes: Uint8Array) =>
    sent.push(`${how} ${index} ${Buffer.from(bytes.subarray(0, 14)).toString('hex')}`);
  const outlet = new DaemonOutlet({
    boundary: { flow: () => undefined, place: () => undefined },
    raw: { toWire: () => sent.push('raw'), toKernel: () => 0, toRetained: () => 0 },
    taps: { toNetwork: frame('frame'), toGuest: frame('guest'), toNetworkVerbatim: frame('as is') },
    wayOf: (ends) => ways.of(ends),
    isRetained: () => false,
    isLocal: () => true,
  });
  const send = (destination: Address, source = NEAR) => {
    const ends = { source, sourcePort: 22, destination, destinationPort: 40_000 };
    outlet.toWire(encodePacket(parsePacketLine('A 0:0(0) ack 1 win 9', ends)), KERNEL);
    return sent.splice(0);
  };
  return { ways, send, looked: () => looked, wait: (ms: number) => (now += ms) };
}

test('by an interface with a boundary: a frame for nobody', () => {
  const { send } = setUp({ attached: ['eth0'] });
  assert.deepEqual(send(FAR), [`frame 2 ${'00'.repeat(12)}0800`]);
});

test('by the way of its source: one with a routing table of its own', () => {
  const { send } = setUp({ attached: ['eth0', 'eth1'] });
  assert.deepEqual(send(FAR, OTHER), [`frame 3 ${'00'.repeat(12)}0800`]);
});

test('by another one, or without a route: to the kernel, which says what is wrong', () => {
  assert.deepEqual(setUp({ attached: ['eth1'] }).send(FAR), ['raw']);
  assert.deepEqual(setUp({ attached: ['eth0'] }).send(address('192.0.2.1')), ['raw']);
});

test('attached and detached: looked at again at once, and after a second whoever did it', () => {
  const attached = ['eth0'];
  const { ways, send, looked, wait } = setUp({ attached });
  send(FAR);
  send(FAR);
  assert.equal(looked(), 1);
  attached.pop();
  ways.changed();
  assert.deepEqual(send(FAR), ['raw']);
  attached.push('eth0');
  wait(1_001);
  assert.match(send(FAR).join(), /^frame 2/);
});
