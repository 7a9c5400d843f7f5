/*
 * Load, adopt, attach, detach, remove: what outlives a daemon and what is left behind.
 *
 *     veth a ---- veth b     (in the namespace of the test)
 */
import assert from 'node:assert/strict';
import { existsSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ABI_VERSION, LIMIT } from '../../src/boundary/abi.gen.js';
import { Boundary } from '../../src/boundary/boundary.js';
import { pinDirectory } from '../../src/boundary/bpffs.js';
import { objectGet } from '../../src/boundary/libbpf.js';
import { BpfMap } from '../../src/boundary/map.js';
import { pinnedObjects } from '../../src/boundary/programs.js';
import { SystemError } from '../../src/libc/errno.js';
import { ownNetwork, run, vethPair } from '../libc/own-network.js';
import { hasMounts, runDirectory } from './runtime-directory.js';

ownNetwork();
const [a, b] = vethPair();

const filters = (name: string): string =>
  run('tc', 'filter', 'show', 'dev', name, 'ingress') +
  run('tc', 'filter', 'show', 'dev', name, 'egress');
const hasClsact = (name: string): boolean =>
  run('tc', 'qdisc', 'show', 'dev', name).includes('clsact');

function pinnedMap(runDir: string, name: string): BpfMap {
  return new BpfMap(objectGet(join(pinDirectory(runDir), name)), name);
}

test('opened, it is pinned; opened again, it is the same', () => {
  const runDir = runDirectory();
  assert.equal(Boundary.exists(runDir), false);
  const first = Boundary.open({ runDir });
  assert.equal(Boundary.exists(runDir), true);
  first.writeSettings({ markGuest: 7, enabled: 1 });
  first.close();
  const second = Boundary.open({ runDir });
  assert.equal(second.settings().markGuest, 7);
  assert.equal(second.settings().abiVersion, ABI_VERSION);
  second.close();
  Boundary.remove(runDir);
  assert.equal(Boundary.exists(runDir), false);
  assert.equal(hasMounts(runDir), false);
  assert.equal(existsSync(pinDirectory(runDir)), false);
  Boundary.remove(runDir); // nothing there: nothing to do
});

test('limits count when loading', () => {
  const runDir = runDirectory();
  const boundary = Boundary.open({ runDir, limits: { flows: 1000, halfOpen: 128 } });
  const sizes = ['flows', 'wires', 'tifids', 'half_open', 'plain'].map(
    (name) => pinnedMap(runDir, name).maxEntries,
  );
  assert.deepEqual(sizes, [1000, 2000, 1000, 128, LIMIT.PLAIN_MAX]);
  boundary.close();
});

test('a host becomes a gateway and a host again, and the next daemon knows which', () => {
  const runDir = runDirectory();
  const boundary = Boundary.open({ runDir });
  boundary.attach(a);
  boundary.attach(a, 'gateway');
  assert.deepEqual([boundary.attached('host'), boundary.attached('gateway')], [[], [a]]);
  assert.deepEqual(boundary.attached(), [a]);
  assert.equal(filters(a).match(/gateway_/g)?.length, 4);
  assert.equal(filters(a).match(/boundary_/g), null);
  boundary.close();

  const next = Boundary.open({ runDir });
  assert.deepEqual(next.attached('gateway'), [a]);
  next.attach(a, 'host');
  next.attach(b, 'gateway');
  assert.deepEqual([next.attached('host'), next.attached('gateway')], [[a], [b]]);
  next.detach(b);
  assert.deepEqual(next.attached(), [a]);
  next.close();

  Boundary.remove(runDir);
  assert.equal(hasClsact(a), false);
});

test('attached in both directions, once, and found by the next daemon', () => {
  const runDir = runDirectory();
  const boundary = Boundary.open({ runDir });
  boundary.attach(a);
  boundary.attach(a);
  assert.deepEqual(boundary.attached(), [a]);
  assert.equal(filters(a).match(/boundary_/g)?.length, 4); // name and section, twice
  boundary.close();

  const next = Boundary.open({ runDir });
  assert.deepEqual(next.attached(), [a]);
  next.attach(b);
  assert.deepEqual(next.attached().sort(), [a, b]);
  next.detach(a);
  next.detach(a);
  assert.deepEqual(next.attached(), [b]);
  assert.equal(hasClsact(a), false);
  next.close();

  Boundary.remove(runDir);
  assert.equal(hasClsact(b), false);
});

test('foreign filters stay, and so does the clsact that they are on', () => {
  const [runDir, foreign] = [runDirectory(), runDirectory()];
  Boundary.open({ runDir: foreign }).close();
  const [object = ''] = pinnedObjects(pinDirectory(foreign));
  const program = join(pinDirectory(foreign), `programs-${object}`, 'boundary_egress');
  run('tc', 'qdisc', 'add', 'dev', a, 'clsact');
  run(
    'tc',
    'filter',
    'add',
    'dev',
    a,
    'egress',
    'pref',
    '7',
    'bpf',
    'da',
    'object-pinned',
    program,
  );
  const before = filters(a);
  const boundary = Boundary.open({ runDir });
  boundary.attach(a);
  assert.notEqual(filters(a), before);
  boundary.detach(a);
  assert.equal(filters(a), before);
  assert.equal(hasClsact(a), true);
  boundary.close();
  run('tc', 'qdisc', 'del', 'dev', a, 'clsact');
});

test('two boundaries on one interface: the second is refused, the first stays', () => {
  const [runDir, otherDir] = [runDirectory(), runDirectory()];
  const [first, second] = [Boundary.open({ runDir }), Boundary.open({ runDir: otherDir })];
  first.attach(a);
  assert.throws(() => second.attach(a), /attach boundary to \w+: EEXIST .*--run-dir/);
  second.detach(a);
  assert.deepEqual(first.attached(), [a]);
  assert.deepEqual(second.attached(), []);
  first.close();
  second.close();
  Boundary.remove(runDir);
});

test('a half-pinned set of a daemon that died is replaced', () => {
  const runDir = runDirectory();
  Boundary.open({ runDir }).close();
  unlinkSync(join(pinDirectory(runDir), 'settings'));
  assert.equal(Boundary.exists(runDir), false);
  const boundary = Boundary.open({ runDir });
  assert.equal(boundary.settings().abiVersion, ABI_VERSION);
  boundary.close();
});

test('a boundary of another version is not adopted', () => {
  const runDir = runDirectory();
  const boundary = Boundary.open({ runDir });
  const settings = pinnedMap(runDir, 'settings');
  const view = settings.get(new Uint8Array(4));
  assert.ok(view);
  view.setUint32(0, ABI_VERSION + 1, true);
  settings.set(new Uint8Array(4), new Uint8Array(view.buffer));
  boundary.close();
  assert.throws(() => Boundary.open({ runDir }), /adopt the boundary .* `tiflow down` first/);
  Boundary.remove(runDir);
  Boundary.open({ runDir }).close();
});

test('what cannot be attached to is named', () => {
  const boundary = Boundary.open({ runDir: runDirectory() });
  const refused = (name: string, code: string): void => {
    assert.throws(
      () => boundary.attach(name),
      (e) => e instanceof SystemError && e.code === code && e.message.includes(`to ${name}: `),
    );
  };
  refused('nosuchif0', 'ENODEV');
  refused('a-name-longer-than-fifteen', 'ENODEV');
  refused('lo', 'ENOTSUP');
  assert.throws(() => boundary.detach('nosuchif0'), /ENODEV/);
  boundary.close();
});

test('an object that is missing or broken: the error says which, and nothing stays', () => {
  const runDir = runDirectory();
  const open = (objectPath: string) => () => Boundary.open({ runDir, objectPath });
  assert.throws(open('/nonexistent.bpf.o'), /data plane \/nonexistent.bpf.o: ENOENT .*make build/);
  const broken = join(runDir, 'broken.o');
  writeFileSync(broken, 'no ELF');
  assert.throws(open(broken), (e) => e instanceof SystemError && e.cause instanceof Error);
  assert.equal(hasMounts(runDir), false);
});

test('without privileges the error says what is needed', () => {
  const script = `
    import { Boundary } from '${new URL('../../src/boundary/boundary.js', import.meta.url)}';
    try { Boundary.open({ runDir: process.argv[1] }); } catch (e) { console.log(e.message); }`;
  const said = run(
    'setpriv',
    '--bounding-set=-all',
    '--inh-caps=-all',
    process.execPath,
    '--input-type=module',
    '-e',
    script,
    runDirectory(),
  );
  assert.match(said, /^mount bpffs on .*: EPERM \(needs root, or CAP_SYS_ADMIN\)$/m);
});
