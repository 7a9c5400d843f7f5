/* Which of the connections that the kernel forgets are put back, and how. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, type Flow } from '../../../src/boundary/abi.gen.js';
import { Translations, type TranslationsOptions } from '../../../src/daemon/host/translations.js';
import { SystemError } from '../../../src/libc/errno.js';
import {
  forgetTracked,
  restoreTranslation,
  type Translation,
} from '../../../src/link/conntrack.js';
import { address } from '../../../src/wire/address.js';
import { tupleText } from '../../../src/wire/tuple.js';

const EEXIST = 17;
const EPERM = 1;
const [INNER, PEER, LENT] = ['10.1.0.10', '203.0.113.10', '192.0.2.10'].map(address) as [
  ...[Translation['original']['source'], Translation['original']['source']],
  Translation['original']['source'],
];
const TRANSLATION: Translation = {
  original: { source: INNER, sourcePort: 40_220, destination: PEER, destinationPort: 5003 },
  reply: { source: PEER, sourcePort: 5003, destination: LENT, destinationPort: 1025 },
};
const RESTORE = restoreTranslation(TRANSLATION);
const FORGET = forgetTracked(TRANSLATION.original);

function machine(o: { flags?: number; isOurs?: boolean; errnos?: number[] } = {}) {
  const errnos = [...(o.errnos ?? [])];
  const [asked, warned, sought]: [Uint8Array[], string[], string[]] = [[], [], []];
  const parts = {
    boundary: {
      attached: () => [],
      flow: (kernel) => {
        sought.push(tupleText(kernel));
        return o.flags === undefined ? undefined : ({ flags: o.flags } as Flow);
      },
    },
    netlink: {
      request: (message, attempted) => {
        asked.push(message);
        const errno = errnos.shift() ?? 0;
        if (errno !== 0) throw new SystemError(attempted, errno);
        return [];
      },
    },
    isOurs: () => o.isOurs ?? false,
    warn: (message) => warned.push(message),
  } satisfies Omit<TranslationsOptions, 'poller'>;
  const translations = new Translations(parts as unknown as TranslationsOptions);
  translations.forgotten(TRANSLATION);
  return { asked, warned, sought };
}

test('of a host behind us, its address gone: put back under the name that the flow has', () => {
  const { asked, warned, sought } = machine({ flags: FLOW_FLAG.FORWARDED });
  assert.deepEqual(sought, ['192.0.2.10:1025 > 203.0.113.10:5003']);
  assert.deepEqual(asked, [RESTORE]);
  assert.deepEqual(warned, []);
});

test('lent another address meanwhile: that is undone first', () => {
  const { asked, warned } = machine({ flags: FLOW_FLAG.FORWARDED, errnos: [EEXIST] });
  assert.deepEqual(asked, [RESTORE, FORGET, RESTORE]);
  assert.deepEqual(warned, []);
});

test('what is refused is told', () => {
  const { asked, warned } = machine({ flags: FLOW_FLAG.FORWARDED, errnos: [EPERM] });
  assert.deepEqual(asked, [RESTORE]);
  assert.equal(warned.length, 1);
});

for (const [name, o] of [
  ['no flow of ours', {}],
  ['a flow of this machine itself', { flags: 0 }],
  ['a flow that is over', { flags: FLOW_FLAG.FORWARDED | FLOW_FLAG.RESET }],
  ['an address that is still here', { flags: FLOW_FLAG.FORWARDED, isOurs: true }],
] as const) {
  test(`left alone: ${name}`, () => assert.deepEqual(machine(o).asked, []));
}
