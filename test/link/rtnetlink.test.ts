import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { decodeSocket } from '../../src/link/inet-diag.js';
import {
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodePrefix,
  decodeRoute,
  decodeRule,
} from '../../src/link/rtnetlink.js';
import { changeAddress, changeRoute, changeRule } from '../../src/link/rtnetlink-request.js';
import { decodeMessages, type NetlinkMessage } from '../../src/netlink/message.js';
import { family } from '../../src/wire/address.js';
import { address4, address6, uint8, uint16, uint32 } from '../wire/arbitrary.js';

const anyAddress = fc.oneof(address4, address6);
const DECODERS = [
  decodeLink,
  decodeAddress,
  decodeRoute,
  decodeRule,
  decodePrefix,
  decodeNeighbour,
  decodeSocket,
];

describe('rtnetlink', () => {
  it('an address is decoded as it was encoded', () => {
    fc.assert(
      fc.property(anyAddress, uint8, uint16, uint8, (address, prefixLength, index, scope) => {
        const a = { address, prefixLength, index, scope };
        assert.deepEqual(decodeAddress(only(changeAddress('add', a))), {
          ...a,
          tentative: false,
          deprecated: false,
          dynamic: true,
          advertised: false,
          temporary: false,
          peer: undefined,
        });
      }),
    );
  });

  it('a route is decoded as it was encoded', () => {
    fc.assert(
      fc.property(anyAddress, uint32, uint8, uint16, uint32, (a, table, protocol, index, n) => {
        const common = { prefixLength: 24, protocol, scope: 3, type: 1, index };
        const route = {
          ...{ ...common, version: family(a), table, destination: a, gateway: a, metric: n },
        };
        const decoded = decodeRoute(only(changeRoute('add', route)));
        const rest = { cloned: false, hops: [], source: undefined, expiresMs: undefined };
        assert.deepEqual(decoded, { ...route, ...rest });
      }),
    );
  });

  it('a rule is decoded as it was encoded', () => {
    fc.assert(
      fc.property(anyAddress, uint32, uint32, uint32, uint8, (a, table, priority, mark, p) => {
        const from = { from: a, to: undefined };
        const rule = { version: family(a), table, priority, mark, protocol: p, ...from };
        assert.deepEqual(decodeRule(only(changeRule('add', rule))), rule);
      }),
    );
  });

  it('any payload is a record or none, never an exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), uint8, (payload, type) => {
        const m = { type, flags: 0, sequence: 0, port: 0, payload };
        for (const decode of DECODERS) decode(m);
      }),
    );
  });

  it('a record with one byte changed is a record or none, never an exception', () => {
    const route = only(
      changeRoute('add', {
        ...{ version: 4, destination: undefined, prefixLength: 0, table: 254 },
        ...{ protocol: 2, scope: 0, type: 1, index: 2, metric: 100, hopLimit: 1 },
      }),
    );
    fc.assert(
      fc.property(fc.nat(route.payload.length - 1), uint8, (at, value) => {
        const payload = route.payload.slice();
        payload[at] = value;
        for (const decode of DECODERS) decode({ ...route, payload });
      }),
    );
  });

  it('an address attribute of a strange length is passed over', () => {
    const payload = Uint8Array.of(2, 24, 0, 0, 2, 0, 0, 0, /**/ 9, 0, 2, 0, 1, 2, 3, 4, 5);
    const m = { type: 20, flags: 0, sequence: 0, port: 0, payload };
    assert.equal(decodeAddress(m), undefined);
  });
});

function only(bytes: Uint8Array): NetlinkMessage {
  const messages = decodeMessages(bytes);
  assert.ok(!('error' in messages) && messages.length === 1);
  const [message] = messages;
  assert.ok(message);
  return message;
}
