/*
 * Another object of the same ABI takes the place of the one that is loaded: with the same maps, at the
 * same places, whatever was left behind by one who died while it did so.
 *
 *     veth a ---- veth b     (in the namespace of the test)
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { attach } from '../../src/boundary/attach.js';
import { Boundary } from '../../src/boundary/boundary.js';
import { pinDirectory } from '../../src/boundary/bpffs.js';
import { programInfo } from '../../src/boundary/libbpf.js';
import { type DataPlane, DEFAULT_OBJECT, openDataPlane } from '../../src/boundary/load.js';
import { objectName, pinnedObjects } from '../../src/boundary/programs.js';
import { closeFd } from '../../src/libc/socket.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { ownNetwork, run, vethPair } from '../libc/own-network.js';
import { hasMounts, runDirectory } from './runtime-directory.js';
import { buildVariant } from './variant.js';

ownNetwork();
const [a, b] = vethPair();
const VARIANT = buildVariant(runDirectory());

/** The ids of the programs on the hooks of both interfaces. */
const programIds = (): number[] =>
  [a, b].flatMap((name) =>
    ['ingress', 'egress'].flatMap((hook) =>
      [...run('tc', 'filter', 'show', 'dev', name, hook).matchAll(/ id (\d+)/g)].map(([, id]) =>
        Number(id),
      ),
    ),
  );

const closePlane = (plane: DataPlane): void => {
  for (const map of Object.values(plane.maps)) map.close();
  for (const fd of Object.values(plane.programs)) closeFd(fd);
};

/* One data plane for all: to load one takes its time. */
const runDir = runDirectory();
const plane = () => pinnedObjects(pinDirectory(runDir));
const open = (objectPath: string) => Boundary.open({ runDir, objectPath });

before(() => {
  const boundary = open(DEFAULT_OBJECT);
  boundary.writeSettings({ markGuest: 7, enabled: 1 });
  boundary.attach(a);
  boundary.attach(b, 'gateway');
  boundary.close();
});

/** Opens it with an object; what has to be true whenever that has come to an end. */
function upgradeTo(objectPath: string): number[] {
  const boundary = open(objectPath);
  const object = objectName(objectPath);
  assert.deepEqual([boundary.object, boundary.refused], [object, undefined]);
  assert.deepEqual([boundary.attached('host'), boundary.attached('gateway')], [[a], [b]]);
  assert.equal(boundary.settings().markGuest, 7);
  assert.deepEqual(plane(), [object]);
  assert.equal(programIds().length, 4);
  boundary.close();
  return programIds();
}

test('the programs are replaced, the maps are not', () => {
  const former = upgradeTo(DEFAULT_OBJECT);
  const ids = upgradeTo(VARIANT);
  assert.ok(ids.every((id) => !former.includes(id)));
  assert.deepEqual(upgradeTo(VARIANT), ids, 'the same object is not loaded again');
});

test('died while it pinned: the programs of before go on, the next one begins again', () => {
  const former = upgradeTo(VARIANT);
  mkdirSync(join(pinDirectory(runDir), `draft-${objectName(DEFAULT_OBJECT)}`));
  assert.deepEqual(upgradeTo(VARIANT), former);
  upgradeTo(DEFAULT_OBJECT);
  const drafts = readdirSync(pinDirectory(runDir)).filter((name) => name.startsWith('draft-'));
  assert.deepEqual(drafts, []);
});

test('died before it replaced any: the next one goes on, to the new object or back', () => {
  for (const next of [DEFAULT_OBJECT, VARIANT]) {
    const former = upgradeTo(DEFAULT_OBJECT);
    closePlane(openDataPlane(runDir, VARIANT, {}));
    assert.equal(plane().length, 2);
    assert.deepEqual(programIds(), former);
    upgradeTo(next);
  }
});

test('died between two interfaces: the next one goes on', () => {
  const former = upgradeTo(VARIANT);
  const pairs = [VARIANT, DEFAULT_OBJECT].map((objectPath) => {
    const opened = openDataPlane(runDir, objectPath, {});
    const { boundary_egress: egress, boundary_ingress: ingress } = opened.programs;
    return { opened, pair: { egress, ingress } };
  });
  const [from, to] = pairs;
  assert.ok(from && to);
  const netlink = new Netlink();
  const ids = Object.values(from.pair).map((fd) => programInfo(fd).id);
  attach(netlink, a, to.pair, (id) => ids.includes(id));
  netlink.close();
  for (const { opened } of pairs) closePlane(opened);
  assert.equal(programIds().filter((id) => former.includes(id)).length, 2);
  upgradeTo(VARIANT);
});

test('an object that the kernel refuses, or that is not there, changes nothing', () => {
  const broken = join(runDir, 'broken.o');
  writeFileSync(broken, 'no ELF');
  const former = upgradeTo(VARIANT);
  for (const objectPath of [broken, join(runDir, 'none.o')]) {
    const boundary = open(objectPath);
    assert.ok(String(boundary.refused).includes(objectPath));
    assert.deepEqual([boundary.object, boundary.attached().sort()], [objectName(VARIANT), [a, b]]);
    boundary.close();
    assert.deepEqual(programIds(), former);
  }
});

test('of both sets nothing is left', () => {
  closePlane(openDataPlane(runDir, DEFAULT_OBJECT, {}));
  Boundary.remove(runDir);
  assert.equal(hasMounts(runDir), false);
  assert.deepEqual(programIds(), []);
});
