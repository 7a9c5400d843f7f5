/* Legacy connections that lost their address: told in time, on any kernel, however many there are. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { Orphans } from '../../../src/daemon/flows/orphans.js';
import { ERRNO, SystemError } from '../../../src/libc/errno.js';
import { guardRounds } from '../../../src/libc/guard.js';
import { type Address, address, addressBytes, family } from '../../../src/wire/address.js';

const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const HERE = address('198.51.100.7');

/* struct inet_diag_msg of an established socket. */
function record(local: Address): Uint8Array {
  const bytes = new Uint8Array(72);
  const view = new DataView(bytes.buffer);
  bytes[0] = family(local) === 4 ? 2 : 10;
  bytes[1] = 1;
  view.setUint16(4, 22);
  view.setUint16(6, 40_000);
  bytes.set(addressBytes(local), 8);
  bytes.set(addressBytes(address('203.0.113.7')), 24);
  return bytes;
}

function setUp(gone: readonly Address[], o: { canDestroy?: boolean; refuses?: Address } = {}) {
  const events: string[] = [];
  let destroyed = 0;
  const orphans = new Orphans({
    boundary: { flow: () => undefined, plain: () => [] },
    netlink: {
      request: (message) => {
        const view = new DataView(message.buffer, message.byteOffset);
        if (view.getUint16(4, true) === SOCK_DESTROY) {
          destroyed += 1;
          if (o.refuses !== undefined && destroyed === 1) {
            throw new SystemError('end the socket', ERRNO.EPERM);
          }
          return [];
        }
        if (message[16] !== 2) return [];
        return gone.map((local) => ({
          ...{ type: SOCK_DIAG_BY_FAMILY, flags: 0, sequence: 0, port: 0, payload: record(local) },
        }));
      },
    },
    giveUpMs: 3_000,
    emit: (event) => events.push(event.event),
    canDestroy: o.canDestroy ?? true,
  });
  return { orphans, events, destroyed: () => destroyed };
}

beforeEach(() => mock.timers.enable({ apis: ['setTimeout'] }));
afterEach(() => mock.timers.reset());

test('more addresses than fit on the stack', () => {
  const many = Array.from({ length: 150_000 }, (_, i) =>
    address(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`),
  );
  const { orphans } = setUp(many);
  orphans.update(new Set([HERE]));
  orphans.close();
});

test('a kernel that cannot end sockets is not asked to', () => {
  const { orphans, destroyed } = setUp([address('192.0.2.10')], { canDestroy: false });
  orphans.update(new Set([HERE]));
  mock.timers.tick(60_000);
  assert.equal(destroyed(), 0);
});

test('one that cannot be ended keeps none of the others waiting', (t) => {
  const failed: string[] = [];
  t.after(guardRounds((error) => failed.push(error.message)));
  // The clock of the machine goes on: what is due at once is due by the next tick.
  const first = address('192.0.2.10');
  const { orphans, events, destroyed } = setUp([first, address('192.0.2.11')], { refuses: first });
  const now = process.hrtime.bigint();
  orphans.update(new Set([HERE]));
  t.mock.method(process.hrtime, 'bigint', () => now + 10_000_000_000n);
  mock.timers.tick(3_000);
  assert.equal(destroyed(), 2);
  assert.deepEqual(events, ['flow-reset']);
  assert.equal(failed.length, 1);
  orphans.close();
});
