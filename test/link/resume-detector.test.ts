/* Which samples of the clocks and which messages of the kernel mean that the machine was moved. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Clocks } from '../../src/libc/clocks.js';
import {
  BEAT_MS,
  isVmForkRecord,
  isVmForkUevent,
  notifiesPeers,
  ResumeDetector,
} from '../../src/link/resume-detector.js';
import { RTM } from '../../src/link/rtnetlink.js';
import { attribute, decodeMessages, encodeMessage } from '../../src/netlink/message.js';

const START: Clocks = { monotonicMs: 1e6, boottimeMs: 1.5e6, realtimeMs: 1.7e12 };

/** Later by so much on each clock. */
const later = (
  c: Clocks,
  monotonic: number,
  boottime = monotonic,
  realtime = boottime,
): Clocks => ({
  monotonicMs: c.monotonicMs + monotonic,
  boottimeMs: c.boottimeMs + boottime,
  realtimeMs: c.realtimeMs + realtime,
});

const verdictAfter = (
  ...steps: Parameters<typeof later> extends [Clocks, ...infer S] ? S : never
) => {
  const detector = new ResumeDetector();
  assert.equal(detector.beat(START), undefined);
  return detector.beat(later(START, ...steps));
};

describe('clocks', () => {
  for (const [what, reason, ...steps] of [
    ['a beat', undefined, BEAT_MS],
    ['a late beat', undefined, BEAT_MS + 4_900],
    ['a nap', 'suspended', BEAT_MS, BEAT_MS + 200],
    ['a night', 'suspended', BEAT_MS, BEAT_MS + 3e7],
    ['what is between two readings', undefined, BEAT_MS, BEAT_MS + 50],
    ['stopped while the clock went on', 'stalled', BEAT_MS + 5_100],
    ['NTP steps a little', undefined, BEAT_MS, BEAT_MS, BEAT_MS + 1_900],
    ['set forward', 'clock-jump', BEAT_MS, BEAT_MS, BEAT_MS + 2_100],
    ['set back', 'clock-jump', BEAT_MS, BEAT_MS, BEAT_MS - 2_100],
  ] as const) {
    it(`${what}: ${reason ?? 'nothing'}`, () => {
      assert.equal(verdictAfter(...(steps as [number])), reason);
    });
  }

  it('goes on from where the clocks are after an alarm', () => {
    const detector = new ResumeDetector();
    detector.beat(START);
    const woken = later(START, BEAT_MS, 60_000);
    assert.equal(detector.beat(woken), 'suspended');
    assert.equal(detector.beat(later(woken, BEAT_MS)), undefined);
    const again = later(woken, 4 * BEAT_MS, 60_000);
    assert.equal(detector.beat(again), 'suspended');
  });

  it('an undisturbed machine never gives an alarm, whatever its load', () => {
    const beats = fc.array(fc.integer({ min: 0, max: BEAT_MS + 4_900 }), { maxLength: 50 });
    const slew = fc.integer({ min: -50, max: 50 });
    fc.assert(
      fc.property(beats, slew, (gaps, slewMs) => {
        const detector = new ResumeDetector();
        let now = START;
        for (const gap of gaps) {
          now = later(now, gap, gap, gap + slewMs);
          assert.equal(detector.beat(now), undefined);
        }
      }),
    );
  });
});

describe('several signs of one move', () => {
  it('are one alarm; the next move is another', () => {
    const detector = new ResumeDetector();
    assert.equal(detector.isNews(1000), true);
    assert.equal(detector.isNews(1400), false);
    assert.equal(detector.isNews(1800, 'eth0'), false);
    assert.equal(detector.isNews(2600), true);
  });

  it('cards that come and go by the thousand are not remembered', () => {
    const detector = new ResumeDetector();
    for (let n = 0; n < 5_000; n++) detector.isNews(n * 10, `veth${n}`);
    assert.ok(detector.remembered < 200, `${detector.remembered} are remembered`);
    assert.equal(detector.isNews(50_000, 'veth4999'), false);
  });

  it('a card that announces itself again and again; another card', () => {
    const detector = new ResumeDetector();
    const times = [0, 50, 200, 450, 800];
    assert.deepEqual(
      times.map((at) => detector.isNews(at, 'eth0')),
      [true, false, false, false, false],
    );
    assert.equal(detector.isNews(100, 'eth1'), true);
  });
});

const uevent = (...lines: string[]) => Buffer.from(lines.map((line) => `${line}\0`).join(''));

describe('uevents', () => {
  const head = ['change@/devices/platform/QEMUVGID:00', 'ACTION=change', 'SUBSYSTEM=platform'];

  it('of vmgenid', () => assert.equal(isVmForkUevent(uevent(...head, 'NEW_VMGENID=1')), true));

  for (const other of [
    uevent(...head),
    uevent(...head, 'OLD_NEW_VMGENID=1'),
    uevent(''),
    Buffer.of(),
  ]) {
    it(`of something else: ${JSON.stringify(other.toString('latin1').slice(-20))}`, () => {
      assert.equal(isVmForkUevent(other), false);
    });
  }
});

describe('records of the kernel log', () => {
  const TEXT = 'random: crng reseeded due to virtual machine fork';
  for (const [record, expected] of [
    [`5,612,81234567,-;${TEXT}\n`, true],
    [`6,612,81234567,-,caller=T12;${TEXT}\n SUBSYSTEM=platform\n`, true],
    [`12,612,81234567,-;${TEXT}\n`, false],
    [`5,612,81234567,-;I say: ${TEXT}\n`, false],
    ['5,612,81234567,-;random: crng init done\n', false],
    ['', false],
  ] as const) {
    it(`${expected ? 'a fork' : 'none'}: ${JSON.stringify(record)}`, () => {
      assert.equal(isVmForkRecord(record), expected);
    });
  }
});

/** RTM_NEWLINK of eth0 with IFLA_EVENT. */
function linkMessage(event: number | undefined, type: number = RTM.NEWLINK): Uint8Array {
  const [IFLA_IFNAME, IFLA_EVENT] = [3, 44];
  const attributes = [attribute(IFLA_IFNAME, 'eth0')];
  if (event !== undefined) attributes.push(attribute(IFLA_EVENT, event));
  return encodeMessage(type, 0, [new Uint8Array(16), ...attributes]);
}

describe('link messages', () => {
  const decoded = (bytes: Uint8Array) => {
    const messages = decodeMessages(bytes);
    assert.ok(!('error' in messages) && messages[0] !== undefined);
    return notifiesPeers(messages[0]);
  };

  it('IFLA_EVENT_NOTIFY_PEERS', () => assert.equal(decoded(linkMessage(4)), 'eth0'));

  it('anything else', () => {
    for (const event of [undefined, 0, 1, 2, 3, 5, 6]) {
      assert.equal(decoded(linkMessage(event)), undefined);
    }
    assert.equal(decoded(linkMessage(4, RTM.DELLINK)), undefined);
    assert.equal(decoded(encodeMessage(RTM.NEWLINK, 0, [new Uint8Array(8)])), undefined);
    const lying = linkMessage(4);
    lying[32] = 255; // the first attribute's length
    assert.equal(decoded(lying), undefined);
  });
});
