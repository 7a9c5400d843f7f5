/* What the world refuses is a failed round, what we do wrong ends the process, and nothing that the
 * world calls is outside the guard.
 */
import assert from 'node:assert/strict';
import { afterEach, describe, mock, test } from 'node:test';
import { FailedRounds } from '../../src/daemon/host/failed-rounds.js';
import { ERRNO, SystemError } from '../../src/libc/errno.js';
import { after, attempt, guarded, guardRounds, isOfWorld, soon } from '../../src/libc/guard.js';
import { FakeClock } from '../sim/fake-clock.js';

const refused = new SystemError('send 8 bytes to ff02::2', ERRNO.EPERM);
const noRoom = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });

describe('the guard', () => {
  let end: () => void = () => undefined;
  const told: string[] = [];
  const begin = () => {
    end = guardRounds((error) => told.push(error.message));
  };
  afterEach(() => {
    end();
    told.length = 0;
    mock.timers.reset();
  });

  test('a refusal of the world is told, and the rest goes on', () => {
    begin();
    const throwing = (error: Error) => () => {
      throw error;
    };
    assert.equal(attempt(throwing(refused)), false);
    assert.equal(attempt(throwing(noRoom)), false);
    assert.equal(
      attempt(() => undefined),
      true,
    );
    assert.deepEqual(told, [refused.message, noRoom.message]);
  });

  test('a mistake of ours is thrown on', () => {
    begin();
    for (const error of [
      new TypeError('flow is undefined'),
      Object.assign(new TypeError('argument'), { code: 'ERR_INVALID_ARG_TYPE' }),
      new SystemError('close descriptor 7', ERRNO.EBADF),
    ]) {
      assert.throws(() =>
        attempt(() => {
          throw error;
        }),
      );
    }
    assert.deepEqual(told, []);
    assert.equal(isOfWorld('a string'), false);
  });

  test('without a daemon everything is thrown', () => {
    assert.throws(() =>
      attempt(() => {
        throw refused;
      }),
    );
  });

  test('timers and callbacks are guarded', () => {
    mock.timers.enable({ apis: ['setTimeout', 'setImmediate'] });
    begin();
    const fail = () => {
      throw refused;
    };
    after(5, fail);
    soon(fail);
    mock.timers.tick(10);
    guarded(fail)();
    assert.equal(told.length, 3);
  });
});

describe('failed rounds', () => {
  function setUp() {
    const clock = new FakeClock();
    const [retries, said]: [number[], string[]] = [[], []];
    const state = { fails: true };
    const rounds = new FailedRounds({
      clock,
      warn: (message) => said.push(message),
      retry: () => {
        retries.push(clock.now());
        if (state.fails) rounds.failed(refused);
      },
    });
    const runTo = (at: number) => {
      clock.setTimer(at - clock.now(), () => undefined);
      clock.run({ atMost: at, until: () => clock.now() >= at });
    };
    return { rounds, retries, said, state, runTo };
  }

  test('are counted, said once, and tried again later and later', () => {
    const { rounds, retries, said, runTo } = setUp();
    rounds.failed(refused);
    rounds.failed(refused);
    runTo(200_000);
    assert.deepEqual(
      retries,
      [1, 3, 7, 15, 31, 63, 123, 183].map((s) => s * 1_000),
    );
    assert.deepEqual(rounds.view(), { count: 10, last: refused.message });
    assert.equal(said.length, 1);
    rounds.failed(noRoom);
    assert.equal(said.length, 2);
  });

  test('begin anew once all went well', () => {
    const { rounds, retries, state, runTo } = setUp();
    rounds.failed(refused);
    runTo(4_000);
    state.fails = false;
    runTo(100_000);
    assert.deepEqual(retries, [1_000, 3_000, 7_000]);
    rounds.failed(refused);
    runTo(200_000);
    assert.equal(retries.length, 4);
  });

  test('a flood of different words does not grow', () => {
    const { rounds, said } = setUp();
    for (let i = 0; i < 10_000; i++) rounds.failed(new Error(`EPERM ${i}`));
    assert.equal(said.length, 10_000);
    assert.equal(rounds.view().count, 10_000);
    rounds.close();
  });
});
