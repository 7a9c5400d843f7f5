/*
 * etc/nsupdate-hook against BIND, which takes updates for two zones under a key:
 *
 *     namespace: named on 127.0.0.1:53   example.org, 2.0.192.in-addr.arpa
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  createNamespace,
  deleteNamespace,
  insideNamespace,
  runCommand,
  runInside,
} from '../../src/lab/namespace.js';
import { ownName } from '../../src/lab/own-name.js';
import { until } from '../../src/lab/wait.js';

const HOOK = fileURLToPath(new URL('../../../etc/nsupdate-hook', import.meta.url));
const NAMESPACE = ownName('dns');
const MAC = '52:54:00:12:34:56';

const zone = (records: string): string => `$TTL 60
@ IN SOA localhost. root.localhost. 1 60 60 60 60
@ IN NS localhost.
${records}
`;

describe('etc/nsupdate-hook', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tiflow-dns-'));
  const file = (name: string): string => join(directory, name);
  let server: ChildProcess | undefined;

  before(async () => {
    process.on('exit', cleanUp);
    createNamespace(NAMESPACE);
    const key = runCommand(['tsig-keygen', 'tiflow']);
    writeFileSync(file('key'), key);
    writeFileSync(file('wrong-key'), runCommand(['tsig-keygen', 'tiflow']));
    const www = 'www A 192.0.2.10\nwww AAAA 2001:db8:1::10\nwww TXT "kept"\ndb A 192.0.2.11';
    writeFileSync(file('example.org'), zone(www));
    writeFileSync(file('reverse'), zone('11 PTR db.example.org.'));
    writeFileSync(
      file('named.conf'),
      `${key}
      options { directory "${directory}"; listen-on { 127.0.0.1; }; listen-on-v6 { none; };
        pid-file none; session-keyfile none; recursion no; dnssec-validation no; };
      controls { };
      zone "example.org" { type master; file "example.org"; allow-update { key tiflow; }; };
      zone "2.0.192.in-addr.arpa" { type master; file "reverse"; };
    `,
    );
    writeFileSync(file('map'), `# who is who\n${MAC.toUpperCase()}  www.example.org  300\n`);
    const argv = insideNamespace(NAMESPACE, ['named', '-g', '-c', file('named.conf'), '-n', '1']);
    server = spawn(argv[0] ?? '', argv.slice(1), { stdio: 'ignore' });
    await until('named to answer', () => records('www.example.org', 'TXT').includes('"kept"'));
  });

  function cleanUp(): void {
    server?.kill('SIGKILL');
    deleteNamespace(NAMESPACE);
    rmSync(directory, { recursive: true, force: true });
  }

  after(async () => {
    if (server?.kill('SIGTERM')) await once(server, 'exit');
    cleanUp();
    process.off('exit', cleanUp);
  });

  /** RDATA of each record; '' while nobody answers. */
  const records = (name: string, type: string): string[] => {
    try {
      const query = ['dig', '+short', '+time=1', '+tries=1', '@127.0.0.1', name, type];
      return runInside(NAMESPACE, query).trim().split('\n').filter(Boolean);
    } catch {
      return [];
    }
  };

  function move(environment: Record<string, string>): { status: number | null; output: string } {
    const [program = '', ...argv] = insideNamespace(NAMESPACE, [HOOK]);
    const { status, stdout, stderr } = spawnSync(program, argv, {
      encoding: 'utf8',
      env: {
        ...{ PATH: process.env.PATH, TIFLOW_VM: 'vnet0', TIFLOW_MAC: MAC },
        ...{ TIFLOW_OLD4: '', TIFLOW_NEW4: '', TIFLOW_OLD6: '', TIFLOW_NEW6: '' },
        ...{ DNS_SERVER: '127.0.0.1', DNS_MAP: file('map'), DNS_KEY: file('key') },
        ...environment,
      },
    });
    return { status, output: stdout + stderr };
  }

  it('a name of the map: both families are replaced, the rest stays', () => {
    const { status, output } = move({
      ...{ TIFLOW_OLD4: '192.0.2.10', TIFLOW_NEW4: '198.51.100.10' },
      ...{ TIFLOW_OLD6: '2001:db8:1::10', TIFLOW_NEW6: '2001:db8:2::10' },
    });
    assert.equal(status, 0, output);
    assert.deepEqual(records('www.example.org', 'A'), ['198.51.100.10']);
    assert.deepEqual(records('www.example.org', 'AAAA'), ['2001:db8:2::10']);
    assert.deepEqual(records('www.example.org', 'TXT'), ['"kept"']);
    const shown = runInside(NAMESPACE, ['dig', '@127.0.0.1', 'www.example.org', 'A']);
    assert.match(shown, /^www\.example\.org\.\s+300\s+IN\s+A/m, 'the TTL of the map');
  });

  it('a family that has not changed is left alone, one that is gone loses its record', () => {
    const same = { TIFLOW_OLD4: '198.51.100.10', TIFLOW_NEW4: '198.51.100.10' };
    const { status, output } = move({ ...same, TIFLOW_OLD6: '2001:db8:2::10' });
    assert.equal(status, 0, output);
    assert.deepEqual(records('www.example.org', 'A'), ['198.51.100.10']);
    assert.deepEqual(records('www.example.org', 'AAAA'), []);
  });

  it('who is not in the map goes by the reverse record of the old address', () => {
    const { status, output } = move({
      ...{ TIFLOW_MAC: '52:54:00:00:00:01', TIFLOW_VM: 'vnet1' },
      ...{ TIFLOW_OLD4: '192.0.2.11', TIFLOW_NEW4: '198.51.100.11' },
    });
    assert.equal(status, 0, output);
    assert.deepEqual(records('db.example.org', 'A'), ['198.51.100.11']);
  });

  it('nobody knows a name: says so and fails', () => {
    const { status, output } = move({
      ...{ TIFLOW_MAC: '52:54:00:00:00:02', TIFLOW_VM: 'vnet2' },
      ...{ TIFLOW_OLD4: '192.0.2.12', TIFLOW_NEW4: '198.51.100.12' },
    });
    assert.equal(status, 1);
    assert.match(output, /no name for 52:54:00:00:00:02 \(vnet2\)/);
  });

  it('without the key, or with another, nothing changes and it fails', () => {
    for (const key of [file('none'), file('wrong-key')]) {
      const { status } = move({
        ...{ DNS_KEY: key },
        ...{ TIFLOW_OLD4: '198.51.100.10', TIFLOW_NEW4: '203.0.113.66' },
      });
      assert.notEqual(status, 0, key);
      assert.deepEqual(records('www.example.org', 'A'), ['198.51.100.10']);
    }
  });
});
