/* Durations in and out, and the suggestion for a mistyped word. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, parseDurationMs } from '../../../src/daemon/config/duration.js';
import { didYouMean } from '../../../src/daemon/config/suggestion.js';

test('durations as they are written', () => {
  const rows: [string, number | undefined][] = [
    ['0s', 0],
    ['250ms', 250],
    ['1.5s', 1500],
    ['2m', 120_000],
    ['24h', 86_400_000],
    ['1d', 86_400_000],
    ['60', undefined],
    ['s', undefined],
    ['-1s', undefined],
    ['1 s', undefined],
    ['1s ', undefined],
    ['1e3s', undefined],
    ['1w', undefined],
    ['', undefined],
  ];
  for (const [text, durationMs] of rows) assert.equal(parseDurationMs(text), durationMs, text);
});

test('durations as they are shown', () => {
  const rows: [number, string][] = [
    [0, '0 ms'],
    [12.4, '12 ms'],
    [999, '999 ms'],
    [1000, '1 s'],
    [61_000, '1 min 1 s'],
    [7_380_000, '2 h 3 min'],
    [7_200_000, '2 h'],
    [90_061_000, '1 d 1 h'],
  ];
  for (const [durationMs, text] of rows) assert.equal(formatDuration(durationMs), text);
});

test('a suggestion only for what is near', () => {
  assert.equal(didYouMean('giveup', ['give_up', 'idle']), ' (did you mean "give_up"?)');
  assert.equal(didYouMean('eht0', ['lo', 'eth0']), ' (did you mean "eth0"?)');
  assert.equal(didYouMean('wlan0', ['lo', 'eth0']), '');
  assert.equal(didYouMean('et0', ['lo', 'eth0']), ' (did you mean "eth0"?)');
  assert.equal(didYouMean('x', []), '');
});
