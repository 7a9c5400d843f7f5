/* A flow without answers: every transition of the graph in stall.ts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  newStall,
  PAUSES_MS,
  STALL_MS,
  type Stall,
  type StallEffect,
  type StallEvent,
  stepStall,
  TRY_MS,
} from '../../../src/daemon/flows/stall.js';

const probed = (unansweredMs: number): StallEvent => ({ event: 'probed', unansweredMs });
const TIMER: StallEvent = { event: 'timer' };
const REFUSED: StallEvent = { event: 'refused' };
const DOUBTED: StallEvent = { event: 'doubted' };

const brief = (effects: StallEffect[]): string[] =>
  effects.map((e) => (e.effect === 'arm' ? `arm ${e.afterMs}` : e.effect));

/** Where these events lead from the beginning, and what the last one asks for. */
function after(...events: StallEvent[]): { stall: Stall; asked: string[] } {
  let stall = newStall();
  let asked: string[] = [];
  for (const event of events) {
    const { next, effects } = stepStall(stall, event);
    stall = next;
    asked = brief(effects);
  }
  return { stall, asked };
}

const TRY = ['try', `arm ${TRY_MS}`];

describe('silent', () => {
  test('its kernel is answered, and nothing else is done so early', () => {
    const { stall, asked } = after(probed(STALL_MS - 1));
    assert.deepEqual(asked, ['stand-in']);
    assert.equal(stall.state, 'silent');
  });

  test('unanswered for long enough: an attempt', () => {
    const { stall, asked } = after(probed(1000), probed(STALL_MS));
    assert.deepEqual(asked, ['stand-in', ...TRY]);
    assert.equal(stall.state, 'trying');
  });

  test('a doubtful reset: an attempt at once', () => {
    assert.deepEqual(after(DOUBTED).asked, TRY);
  });

  test('what is refused without an attempt means nothing', () => {
    assert.deepEqual(after(REFUSED).asked, []);
  });
});

describe('trying', () => {
  test('its kernel is answered, and one attempt is enough', () => {
    const { stall, asked } = after(probed(STALL_MS), probed(9000));
    assert.deepEqual(asked, ['stand-in']);
    assert.deepEqual(stall, { state: 'trying', tries: 1 });
    assert.deepEqual(after(probed(STALL_MS), DOUBTED).asked, []);
  });

  test('no answer in time, or refused: a pause', () => {
    for (const end of [TIMER, REFUSED]) {
      const { stall, asked } = after(probed(STALL_MS), end);
      assert.deepEqual(asked, [`arm ${PAUSES_MS[0]}`]);
      assert.equal(stall.state, 'silent');
    }
  });
});

describe('pausing', () => {
  test('its kernel is answered, and no attempt is made', () => {
    assert.deepEqual(after(probed(STALL_MS), TIMER, probed(9000)).asked, ['stand-in']);
  });

  test('the pause is over: another attempt', () => {
    const { stall, asked } = after(probed(STALL_MS), TIMER, TIMER);
    assert.deepEqual(asked, TRY);
    assert.deepEqual(stall, { state: 'trying', tries: 2 });
  });

  test('a reset ends the first pause, not the later ones: each costs a handshake', () => {
    assert.deepEqual(after(probed(STALL_MS), TIMER, DOUBTED).asked, TRY);
    assert.deepEqual(after(DOUBTED, TIMER, TIMER, TIMER, DOUBTED).asked, []);
  });

  test('pauses grow up to a bound', () => {
    const pauses = [1, 2, 3, 4, 5, 6, 7].map((tries) => {
      const events = Array.from({ length: 2 * tries - 1 }, () => TIMER);
      return after(probed(STALL_MS), ...events).asked[0];
    });
    const last = PAUSES_MS.at(-1);
    assert.deepEqual(
      pauses,
      [...PAUSES_MS, last, last].map((ms) => `arm ${ms}`),
    );
  });
});
