/* The configuration: every mistake is one line that names file, line and key. */

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  CONFIG_KEYS,
  ConfigError,
  defaultConfig,
  parseConfig,
  readConfig,
} from '../../../src/daemon/config/config.js';
import { temporaryDirectory, temporaryFile } from '../temporary.js';

const KEY = 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=';

function errorsOf(text: string): string[] {
  try {
    parseConfig(text, 'tiflow.toml');
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split('\n');
  }
  return [];
}

describe('values', () => {
  test('no file means the defaults', () => {
    const config = readConfig('/nonexistent/tiflow.toml', { mustExist: false });
    assert.deepEqual(config, {
      interfaces: [],
      gateways: [],
      taps: [],
      runDir: '/run/tiflow',
      stateDir: '/var/lib/tiflow',
      giveUpMs: 60_000,
      holdMs: 900_000,
      prefer: [],
      followMs: 2_000,
      quarantineMs: 3_000,
      idleMs: 86_400_000,
      plainPeerTtlMs: 3_600_000,
      mark: 0x5449,
      table: 0x5449,
      sourcePorts: { first: 10_000, last: 32_767 },
      flowsMax: 65_536,
      renew: undefined,
      psk: undefined,
      vm: { moved: undefined },
      log: 'info',
    });
    assert.deepEqual(config, defaultConfig());
  });

  test('every key', () => {
    const text = `
      interfaces = ["eth0", "eth1", "eth0"]
      gateways = ["up0", "up0"]
      taps = ["vnet*"]
      run_dir = "/run/other"
      state_dir = "/var/other"
      give_up = "1.5m"
      hold = "12h"
      follow = "never"
      quarantine = "500ms"
      idle = "7d"
      plain_peer_ttl = "1d"
      mark = 0x100
      table = 77
      source_ports = "50000-50999"
      flows_max = 1000
      renew = "/usr/local/bin/renew $1"
      log = "debug"
      [[prefer]]
      interface = "wwan*"
      cost = 100
      [[prefer]]
      interface = "wlan0"
      never = true
      port = 22
      [psk]
      key_id = 2
      require = true
      keys = { "1" = "${KEY}", "2" = "base64:${KEY}" }
      [vm]
      moved = "/usr/local/bin/moved"`;
    const { psk, ...config } = parseConfig(text, 'tiflow.toml');
    assert.deepEqual(config, {
      interfaces: ['eth0', 'eth1'],
      gateways: ['up0'],
      taps: ['vnet*'],
      runDir: '/run/other',
      stateDir: '/var/other',
      giveUpMs: 90_000,
      holdMs: 43_200_000,
      prefer: [
        { interface: 'wwan*', cost: 100, never: false },
        { interface: 'wlan0', cost: 0, never: true, port: 22 },
      ],
      followMs: Number.POSITIVE_INFINITY,
      quarantineMs: 500,
      idleMs: 604_800_000,
      plainPeerTtlMs: 86_400_000,
      mark: 256,
      table: 77,
      sourcePorts: { first: 50_000, last: 50_999 },
      flowsMax: 1000,
      renew: '/usr/local/bin/renew $1',
      vm: { moved: '/usr/local/bin/moved' },
      log: 'debug',
    });
    const bytes = new Uint8Array(Buffer.from(KEY, 'base64'));
    assert.deepEqual(psk, {
      keyId: 2,
      keys: new Map([
        [1, bytes],
        [2, bytes],
      ]),
      files: [],
      inline: true,
    });
    for (const key of CONFIG_KEYS)
      assert.match(text, new RegExp(`${key.replace(/^[a-z]+\./, '')} =`));
  });

  test('a key file, relative to the configuration', (t) => {
    const directory = temporaryDirectory(t);
    mkdirSync(join(directory, 'keys'));
    writeFileSync(join(directory, 'keys/one'), `${KEY}\n`);
    const text = '[psk]\nkey_id = 1\nkeys = { "1" = "./keys/one" }';
    const config = parseConfig(text, join(directory, 'tiflow.toml'));
    assert.equal(config.psk?.keys.get(1)?.length, 32);
    assert.deepEqual(config.psk?.files, [join(directory, 'keys/one')]);
    assert.equal(config.psk?.inline, false);
  });
});

const DURATION_GIVE_UP = 'must be a duration with a unit, "1s" to "24h" (units: ms, s, m, h, d)';

/* [what, file, messages] */
const MISTAKES: [string, string, string[]][] = [
  ['broken TOML', 'log = "info"\ngive_up =\n', ['tiflow.toml:2: column 10: invalid value']],
  [
    'a table twice',
    '[psk]\nkey_id = 1\n[psk]\n',
    ['tiflow.toml:3: column 2: trying to redefine an already defined table or value'],
  ],
  [
    'an unknown key of a table',
    '[vm]\nmovd = "true"\nmoved = ""',
    [
      'tiflow.toml:2: vm.movd: unknown key (did you mean "moved"?)',
      'tiflow.toml:3: vm.moved: must not be empty',
    ],
  ],
  [
    'a preference',
    '[[prefer]]\ninterface = "wwan*"\n[[prefer]]\ninterfaces = "x"\ncost = -1\n',
    [
      'tiflow.toml:3: prefer.1.interface: missing: must be a string',
      'tiflow.toml:4: prefer.1.interfaces: unknown key (did you mean "interface"?)',
      'tiflow.toml:5: prefer.1.cost: must be an integer from 0 to 65535',
    ],
  ],
  [
    'an unknown key',
    '# comment\n\ngiveup = "60s"',
    ['tiflow.toml:3: giveup: unknown key (did you mean "give_up"?)'],
  ],
  ['an unknown key like no other', 'frobnicate = 1', ['tiflow.toml:1: frobnicate: unknown key']],
  [
    'an unknown key in a table',
    `[psk]\nkey_id = 1\nkeys = { "1" = "${KEY}" }\nrequired = true`,
    ['tiflow.toml:4: psk.required: unknown key (did you mean "require"?)'],
  ],
  [
    'a duration without a unit',
    'log = "info"\ngive_up = "60"',
    [`tiflow.toml:2: give_up: "60" ${DURATION_GIVE_UP}`],
  ],
  ['a duration that is a number', 'give_up = 60', [`tiflow.toml:1: give_up: ${DURATION_GIVE_UP}`]],
  [
    'a duration out of range',
    'give_up = "2d"',
    [`tiflow.toml:1: give_up: "2d" ${DURATION_GIVE_UP}`],
  ],
  [
    'a wrong level',
    'log = "loud"',
    ['tiflow.toml:1: log: must be one of trace, debug, info, warn, error, silent'],
  ],
  [
    'ports upside down',
    'source_ports = "65535-61000"',
    [
      'tiflow.toml:1: source_ports: "65535-61000" must be two ports from 1024 to 65535, ' +
        'like "10000-32767"',
    ],
  ],
  [
    'a number out of range',
    'mark = 0',
    ['tiflow.toml:1: mark: must be an integer from 1 to 4294967295'],
  ],
  ['a table of the system', 'table = 254', ['tiflow.toml:1: table: must not be 251 to 255']],
  ['a relative run_dir', 'run_dir = "run"', ['tiflow.toml:1: run_dir: must be an absolute path']],
  [
    'an array over several lines',
    'interfaces = [\n  "eth0",\n  "a/b",\n]',
    [
      'tiflow.toml:1: interfaces.1: is no interface name ' +
        'or pattern (up to 31 characters, no "/", ":" or space; * and ? match)',
    ],
  ],
  [
    'several mistakes',
    'log = "loud"\nmark = "x"\n',
    [
      'tiflow.toml:1: log: must be one of trace, debug, info, warn, error, silent',
      'tiflow.toml:2: mark: must be an integer from 1 to 4294967295',
    ],
  ],
  [
    'psk without keys',
    '\n[psk]\nkey_id = 1',
    ['tiflow.toml:2: psk.keys: missing: must be a table'],
  ],
  [
    'a key id without its key',
    `[psk]\nkey_id = 2\nkeys = { "1" = "${KEY}" }`,
    ['tiflow.toml:2: psk.key_id: no key "2" in psk.keys'],
  ],
  [
    'a short key, whose value is not shown',
    '[psk]\nkey_id = 1\nkeys = { "1" = "c2hvcnQ=" }',
    ['tiflow.toml:3: psk.keys.1: has 5 bytes, not 16 to 1024 (try: openssl rand -base64 32)'],
  ],
  [
    'a key that is not base64',
    '[psk]\nkey_id = 1\n[psk.keys]\n1 = "correct horse battery staple"',
    ['tiflow.toml:4: psk.keys.1: is not base64'],
  ],
  [
    'a key named by no id',
    `[psk]\nkey_id = 1\nkeys = { "256" = "${KEY}" }`,
    ['tiflow.toml:3: psk.keys.256: a key is named by its id, "1" to "255"'],
  ],
  [
    'a missing key file',
    '[psk]\nkey_id = 1\nkeys = { "1" = "/nonexistent/key" }',
    [
      'tiflow.toml:3: psk.keys.1: cannot read the key file /nonexistent/key: ENOENT ' +
        '(if it is a key and no path, write "base64:" before it)',
    ],
  ],
];

describe('mistakes', () => {
  for (const [what, text, messages] of MISTAKES) {
    test(what, () => assert.deepEqual(errorsOf(text), messages));
  }

  test('a file that must exist and does not', () => {
    assert.throws(() => readConfig('/nonexistent/tiflow.toml', { mustExist: true }), {
      name: 'ConfigError',
      message: '/nonexistent/tiflow.toml: cannot read the configuration: ENOENT',
    });
  });

  test('a directory instead of a file', (t) => {
    const path = temporaryDirectory(t);
    assert.throws(() => readConfig(path, { mustExist: false }), {
      message: `${path}: cannot read the configuration: EISDIR`,
    });
  });

  test('whatever the file contains, a configuration or a ConfigError comes out', (t) => {
    const path = temporaryFile(t, 'tiflow.toml', '');
    const line = fc.oneof(
      fc.string(),
      fc
        .constantFrom(...CONFIG_KEYS, '__proto__', 'constructor')
        .chain((key) =>
          fc
            .constantFrom('1', '-1', '""', '"60s"', '[]', '{}', 'true', '1979-05-27', 'nan')
            .map((value) => `${key} = ${value}`),
        ),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 6 }), (lines) => {
        try {
          assert.ok(parseConfig(lines.join('\n'), path).giveUpMs >= 1000);
        } catch (error) {
          assert.ok(error instanceof ConfigError, String(error));
          const [first = ''] = error.message.split('\n');
          assert.ok(first.startsWith(`${path}:`), first);
        }
      }),
      { numRuns: 300 },
    );
  });
});
