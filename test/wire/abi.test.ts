/* The numbers that the codec and the data plane share are those of bpf/abi.h. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { EXTENSION_HEADERS_MAX } from '../../src/wire/ip.js';
import { TI } from '../../src/wire/option.js';

// Tests run from the compiled tree, which lies one level below the root like the sources.
const header = readFileSync(new URL('../../../bpf/abi.h', import.meta.url), 'utf8');

/** The value that abi.h gives the enumerator `name`. */
function value(name: string): number {
  const text = new RegExp(`\\b${name} = (0x[0-9a-f]+|\\d+)`).exec(header)?.[1];
  assert.ok(text !== undefined, `${name} in bpf/abi.h`);
  return Number(text);
}

const SHARED: Record<string, number> = {
  OPTION_KIND: TI.kind,
  OPTION_EXID: TI.exid,
  OPTION_VERSION: TI.version,
  OPTION_OPEN_LENGTH: TI.length.open,
  OPTION_SYNC_LENGTH: TI.length.sync,
  OPTION_CONFIRM_LENGTH: TI.length.confirm,
  OPTION_RST_LENGTH: TI.length.rst,
  SUBTYPE_OPEN: TI.subtype.open,
  SUBTYPE_SYNC: TI.subtype.sync,
  SUBTYPE_CONFIRM: TI.subtype.confirm,
  SUBTYPE_RST: TI.subtype.rst,
  EXTENSION_HEADERS_MAX,
};

for (const [name, number] of Object.entries(SHARED)) {
  test(`${name} is ${number} on both sides`, () => assert.equal(value(name), number));
}
