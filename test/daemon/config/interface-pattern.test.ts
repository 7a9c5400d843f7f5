import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  interfacePattern,
  isPattern,
  matchesName,
} from '../../../src/daemon/config/interface-pattern.js';

const MATCHES: readonly [pattern: string, name: string, matches: boolean][] = [
  ['eth0', 'eth0', true],
  ['eth0', 'eth00', false],
  ['eth0', 'veth0', false],
  ['en*', 'enp3s0', true],
  ['en*', 'en', true],
  ['en*', 'wlan0', false],
  ['*', 'anything', true],
  ['veth?', 'veth1', true],
  ['veth?', 'veth', false],
  ['br-*', 'br-0a1b2c', true],
  ['eth0.100', 'eth0x100', false],
  ['a+b', 'aab', false],
  ['t[a]*', 't[a]p', true],
  ['default', 'default', false],
];

describe('a pattern', () => {
  for (const [pattern, name, matches] of MATCHES) {
    test(`${pattern} and ${name}: ${matches}`, () => {
      assert.equal(matchesName(pattern, name), matches);
    });
  }

  test('is one if it may name other links than that of its name', () => {
    assert.deepEqual(['eth0', 'en*', 'veth?', 'default'].map(isPattern), [false, true, true, true]);
  });

  test('may be longer than a name', () => {
    const fits = (text: string) => interfacePattern.safeParse(text).success;
    assert.deepEqual(['sixteen-letters*', 'sixteen-letters.', 'a/b', '..', '', 'a b'].map(fits), [
      true,
      false,
      false,
      false,
      false,
      false,
    ]);
  });
});
