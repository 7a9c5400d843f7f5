/* Interfaces that are not there keep nobody from starting, and are taken when they come. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Wanted } from '../../../src/daemon/host/wanted.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';

function setUp(...there: string[]) {
  const present = new Set(there);
  const [attached, said]: [string[], string[]] = [[], []];
  const failures = new Map<string, number>();
  const wanted = new Wanted({
    attach: (name, gateway) => {
      const errno = failures.get(name) ?? (present.has(name) ? undefined : ERRNO.ENODEV);
      if (errno !== undefined) throw new SystemError(`attach boundary to ${name}`, errno);
      attached.push(`${name}${gateway ? ' gateway' : ''}`);
    },
    warn: (message) => said.push(message),
  });
  return { wanted, attached, said, present, failures };
}

test('one that is missing is said and shown, and taken when it appears', () => {
  const { wanted, attached, said, present } = setUp('eth0');
  wanted.add('bond0', true);
  wanted.add('eth0', undefined);
  assert.deepEqual(attached, ['eth0']);
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /bond0 is not protected: .*ENODEV/);
  assert.deepEqual(
    wanted.missing().map(({ name, gateway }) => [name, gateway]),
    [['bond0', true]],
  );
  wanted.retry();
  assert.equal(said.length, 1);
  present.add('bond0');
  wanted.appeared('eth7');
  wanted.appeared('bond0');
  assert.deepEqual(attached, ['eth0', 'bond0 gateway']);
  assert.deepEqual(wanted.missing(), []);
});

test('one that goes is missing, and taken again', () => {
  const { wanted, attached } = setUp('eth0');
  wanted.attached('eth0', undefined);
  wanted.vanished('eth0');
  assert.deepEqual(wanted.missing(), [{ name: 'eth0', gateway: false, why: 'it is gone' }]);
  wanted.appeared('eth0');
  assert.deepEqual(attached, ['eth0']);
});

test('one that nobody wants any more stays alone', () => {
  const { wanted, attached } = setUp('eth0');
  wanted.attached('eth0', undefined);
  wanted.forget('eth0');
  wanted.vanished('eth0');
  wanted.appeared('eth0');
  wanted.retry();
  assert.deepEqual(attached, []);
});

test('missing privileges concern the process', () => {
  const { wanted, failures } = setUp();
  failures.set('eth0', ERRNO.EPERM);
  assert.throws(() => wanted.add('eth0', undefined), /EPERM/);
});
