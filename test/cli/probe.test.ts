/* `tiflow probe`: targets as people write them, what a finding reads like, exit codes. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatHops, describe as tell } from '../../src/cli/probe/describe.js';
import { parseTarget } from '../../src/cli/probe/target.js';
import type { Answer } from '../../src/probe/answer.js';
import type { Probed } from '../../src/probe/probe.js';
import { judge } from '../../src/probe/verdict.js';
import { address } from '../../src/wire/address.js';
import { mayChangeUser, tiflow } from './tiflow.js';

describe('targets', () => {
  for (const [text, host, port] of [
    ['db.example.org', 'db.example.org', 22],
    ['db.example.org:5432', 'db.example.org', 5432],
    ['192.0.2.10', '192.0.2.10', 22],
    ['192.0.2.10:443', '192.0.2.10', 443],
    ['2001:db8::10', '2001:db8::10', 22],
    ['[2001:db8::10]', '2001:db8::10', 22],
    ['[2001:db8::10]:443', '2001:db8::10', 443],
    ['::1', '::1', 22],
  ] as const) {
    test(text, () => assert.deepEqual(parseTarget(text), { host, port }));
  }

  for (const text of ['host:', 'host:0', 'host:65536', 'host:ssh', ':22', '', '[::1', 'a:b:c']) {
    test(`"${text}" is none`, () => assert.throws(() => parseTarget(text), /is not HOST/));
  }
});

const UNREACHABLE: Answer = {
  kind: 'unreachable',
  ...{ from: address('10.0.1.2'), why: 'administratively prohibited', ms: 1 },
};

const found = (answers: Probed['answers'], o: Partial<Probed> = {}): Probed => ({
  answers,
  verdict: judge(answers, undefined),
  room: { syn: 20, synAck: undefined },
  hops: undefined,
  ...o,
});

const said = (probed: Probed, id: string): string => {
  const check = tell({ host: 'h', port: 22 }, probed, { interface: 'eth0', protected: true }).find(
    (each) => each.id === id,
  );
  return `${check?.level}: ${check?.message}`;
};

describe('a finding in words', () => {
  test('who on the way refuses is named', () => {
    const probed = found({ open: UNREACHABLE, plain: UNREACHABLE, sync: undefined });
    const text = 'cannot be told: unreachable (10.0.1.2 says: administratively prohibited)';
    assert.equal(said(probed, 'move'), `warn: h port 22: ${text}`);
  });

  test('where on the way the option went is named', () => {
    const none = { kind: 'none' } as const;
    const hops = [
      { hop: 1, address: '203.0.113.1', ms: 1, option: 'there' as const },
      { hop: 2, address: null, ms: null, option: 'silent' as const },
      { hop: 3, address: '10.0.1.2', ms: 1, option: 'gone' as const },
    ];
    const probed = found({ open: none, plain: none, sync: undefined }, { hops });
    assert.equal(
      said(probed, 'there'),
      'fail: the option on the way to h is gone at 10.0.1.2 (hop 3)',
    );
    assert.deepEqual(formatHops(hops), [
      ' hop  address      time    option',
      '   1  203.0.113.1  1.0 ms  as it was sent',
      '   2  *',
      '   3  10.0.1.2     1.0 ms  GONE',
    ]);
  });

  test('too little room is a failure', () => {
    const none = { kind: 'none' } as const;
    const probed = found(
      { open: none, plain: none, sync: undefined },
      { room: { syn: 20, synAck: 16 } },
    );
    const text = '16 of 40 bytes of options are left in its SYN/ACK, 20 are needed';
    assert.equal(said(probed, 'room.back'), `fail: ${text}`);
  });
});

test('wrong arguments: 2', async () => {
  assert.equal((await tiflow(['probe'])).exit, 2);
  const { exit, stderr } = await tiflow(['probe', 'host:ssh']);
  assert.equal(exit, 2);
  assert.equal(stderr, 'tiflow: "host:ssh" is not HOST, HOST:PORT or [IPV6]:PORT\n');
});

const skip = mayChangeUser ? false : 'needs root, to become nobody';
test('without privileges: 4, and what is missing', { skip }, async () => {
  const { exit, stderr } = await tiflow(['probe', '192.0.2.10'], { asNobody: true });
  assert.equal(exit, 4);
  assert.match(stderr, /^tiflow: probe: not permitted: needs CAP_NET_RAW, CAP_NET_ADMIN/);
});
