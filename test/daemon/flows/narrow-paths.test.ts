/* When a kernel is told that its packets are too large: never on a path that makes progress. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FLOW_FLAG, type Flow, type Mapping } from '../../../src/boundary/abi.gen.js';
import { NarrowPaths } from '../../../src/daemon/flows/narrow-paths.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { address } from '../../../src/wire/address.js';
import { type Seq, seq, seqAdd } from '../../../src/wire/seq.js';
import type { Tuple } from '../../../src/wire/tuple.js';
import { FakeClock } from '../../sim/fake-clock.js';

const V4: Tuple = {
  ...{ local: address('192.0.2.10'), remote: address('203.0.113.10') },
  ...{ localPort: 22, remotePort: 40_000 },
};
const V6: Tuple = {
  ...V4,
  ...{ local: address('2001:db8:1::10'), remote: address('2001:db8:a::10') },
};

const MAPPING: Mapping = {
  wire: { ...V4, local: address('198.51.100.10'), localPort: 33_000 },
  ...{ sndDelta: seq(5000), rcvDelta: seq(7000), sndBase: seq(1), rcvBase: seq(1), redirect: 0 },
};

interface State {
  una: Seq;
  inFlight: number;
  flags?: number;
  /** Nothing at all comes in. */
  dead?: boolean;
}

function setUp(kernel: Tuple, o: { refuses?: boolean } = {}) {
  const clock = new FakeClock();
  let state: State | undefined;
  const told: number[] = [];
  const packets: Uint8Array[] = [];
  let answers = 1n;
  let asked = 0;
  const paths = new NarrowPaths({
    clock,
    flow: () =>
      state &&
      ({
        sndUna: state.una,
        sndNxt: seqAdd(state.una, state.inFlight),
        flags: state.flags ?? 0,
        seenIn: answers,
        ...{ active: 1, mapping: [MAPPING, MAPPING], rcvNxt: seq(1), rcvMax: seq(1) },
      } as Flow),
    ask: (to, { payload, seq: at, sourcePort }) => {
      assert.deepEqual([to, payload.length, sourcePort], [kernel, 0, MAPPING.wire.localPort]);
      assert.equal(at, seqAdd(state?.una ?? seq(0), MAPPING.sndDelta - 1));
      asked += 1;
      if (state?.dead !== true) answers += 1n;
    },
    deliver: (_, packet) => {
      if (o.refuses) throw new SystemError('send', ERRNO.ENOBUFS);
      packets.push(packet);
    },
    emit: (event) => told.push(event.mtu ?? 0),
  });
  paths.moved(kernel);
  /** One second in which the flow is like that. */
  const second = (now: State | undefined): void => {
    state = now;
    const end = clock.now() + 1_000;
    clock.setTimer(1_000, () => undefined);
    clock.run({ atMost: end, until: () => clock.now() >= end });
  };
  return { second, told, packets, asked: () => asked };
}

const STUCK: State = { una: seq(0xffff_ff00), inFlight: 5000 };

describe('a path that swallows large packets', () => {
  test('two seconds with the same byte unanswered, and the kernel is told', () => {
    const { second, told, packets } = setUp(V4);
    second(STUCK);
    assert.deepEqual(told, []);
    second(STUCK);
    assert.deepEqual(told, [1280]);
    // The quoted sequence number, behind two IP headers, the ICMP header and the ports.
    const view = new DataView(packets[0]?.buffer ?? new ArrayBuffer(0));
    assert.equal(view.getUint32(20 + 8 + 20 + 4), STUCK.una);
  });

  test('one that has been dead for a while, too', () => {
    const { second, told, asked } = setUp(V4);
    for (let i = 0; i < 5; i++) second({ ...STUCK, dead: true });
    assert.deepEqual([told, asked()], [[], 5]);
    second(STUCK);
    assert.deepEqual(told, []);
    second(STUCK);
    assert.deepEqual(told, [1280]);
  });

  test('IPv4: once more if that did not help; IPv6 knows nothing smaller', () => {
    const v4 = setUp(V4);
    const v6 = setUp(V6);
    for (let i = 0; i < 10; i++) for (const { second } of [v4, v6]) second(STUCK);
    assert.deepEqual(v4.told, [1280, 576]);
    assert.deepEqual(v6.told, [1280]);
  });

  test('idle, and only then large', () => {
    const { second, told } = setUp(V6);
    for (let i = 0; i < 10; i++) second({ ...STUCK, inFlight: 0 });
    second(STUCK);
    second(STUCK);
    assert.deepEqual(told, [1280]);
  });

  test('what the system refused is tried again', () => {
    const { second, told } = setUp(V6, { refuses: true });
    for (let i = 0; i < 5; i++) second(STUCK);
    assert.deepEqual(told, []);
  });
});

describe('nothing is told', () => {
  const rows: Array<[string, (i: number) => State | undefined]> = [
    ['while data is answered, however slowly', (i) => ({ ...STUCK, una: seq(i) })],
    ['while what waits is small', () => ({ ...STUCK, inFlight: 1000 })],
    ['while nothing comes in, whatever is asked', () => ({ ...STUCK, dead: true })],
    ['while the flow is held', () => ({ ...STUCK, flags: FLOW_FLAG.HELD })],
    ['of a flow that has been reset', () => ({ ...STUCK, flags: FLOW_FLAG.RESET })],
    ['of a flow that is gone', () => undefined],
    ['after the first minute', (i) => ({ ...STUCK, inFlight: i < 61 ? 0 : 5000 })],
  ];
  for (const [name, at] of rows) {
    test(name, () => {
      const { second, told } = setUp(V4);
      for (let i = 0; i < 70; i++) second(at(i));
      assert.deepEqual(told, []);
    });
  }
});
