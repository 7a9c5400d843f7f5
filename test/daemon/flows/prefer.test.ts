/* What [[prefer]] makes of the ways that there are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { costOf, type Preference, rank } from '../../../src/daemon/flows/prefer.js';

const say = (pattern: string, o: Partial<Preference> = {}): Preference => ({
  ...{ interface: pattern, cost: 0, never: false },
  ...o,
});
const SSH = { localPort: 40_000, remotePort: 22 };

const orders: [string, Preference[], string[]][] = [
  ['nothing is said: as the kernel has them', [], ['wwan0', 'eth0', 'wlan0']],
  ['one costs more than the others', [say('wwan*', { cost: 100 })], ['eth0', 'wlan0', 'wwan0']],
  [
    'each has its cost',
    [say('wwan*', { cost: 9 }), say('eth*', { cost: 5 }), say('wlan0', { cost: 3 })],
    ['wlan0', 'eth0', 'wwan0'],
  ],
  ['never', [say('wwan*', { never: true })], ['eth0', 'wlan0']],
  [
    'the first that matches counts',
    [say('wwan0'), say('w*', { cost: 7 })],
    ['wwan0', 'eth0', 'wlan0'],
  ],
  ['for a port', [say('wwan*', { never: true, port: 22 })], ['eth0', 'wlan0']],
  ['for another port', [say('wwan*', { never: true, port: 25 })], ['wwan0', 'eth0', 'wlan0']],
];

for (const [name, prefer, expected] of orders) {
  test(`rank: ${name}`, () => {
    const ways = ['wwan0', 'eth0', 'wlan0'].map((each) => ({ interface: each }));
    const ranked = rank(ways, (each) => costOf(each, prefer, SSH));
    assert.deepEqual(
      ranked.map((way) => way.interface),
      expected,
    );
  });
}
