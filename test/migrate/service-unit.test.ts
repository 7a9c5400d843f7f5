/* What a service manager would do when the QEMU that it started has moved away. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serviceUnit, unitOf } from '../../src/migrate/service-unit.js';
import { notesOf } from '../../src/migrate/survey.js';

test('the unit of a process, in both kinds of hierarchy', () => {
  assert.equal(unitOf('0::/system.slice/vm-web.service\n'), 'vm-web.service');
  assert.equal(
    unitOf('9:name=systemd:/system.slice/vm.service/payload\n8:pids:/x.service\n'),
    'vm.service',
  );
  assert.equal(unitOf('0::/user.slice/user-0.slice/session-3.scope\n'), undefined);
  assert.equal(unitOf('4:memory:/a.service\n0::/\n'), undefined);
});

test('a unit that would start the VM again', () => {
  const shown = (pid: number, restart: string, state = 'static') =>
    `MainPID=${pid}\nRestart=${restart}\nUnitFileState=${state}\n`;
  const rows: [string, RegExp | undefined, RegExp[]][] = [
    [shown(7, 'no'), undefined, []],
    [shown(7, 'always'), /^vm\.service has Restart=always and would start the VM here again/, []],
    [shown(7, 'on-success'), /Restart=on-success/, []],
    // It ends without a failure, unless it hangs.
    [shown(7, 'on-failure'), undefined, [/Restart=on-failure: see that/]],
    // Whoever it is that is watched, it is not QEMU.
    [shown(1, 'always'), undefined, [/Restart=always: see that/]],
    [
      shown(7, 'no', 'enabled'),
      undefined,
      [/enabled: it starts the VM here again at the next boot/],
    ],
    ['', undefined, []],
  ];
  for (const [text, problem, notes] of rows) {
    const unit = serviceUnit('vm.service', 7, text);
    if (problem === undefined) assert.equal(unit.problem, undefined, text);
    else assert.match(unit.problem ?? '', problem);
    assert.equal(unit.notes.length, notes.length, text);
    for (const [n, note] of notes.entries()) assert.match(unit.notes[n] ?? '', note);
  }
});

test('what a QEMU will not have at the other place is said', () => {
  const unit = serviceUnit('vm.service', 7, 'MainPID=7\nRestart=no\nUnitFileState=enabled\n');
  assert.deepEqual(notesOf({ argv: [], uid: 0 }, 'porthos', undefined), []);
  assert.deepEqual(notesOf({ argv: [], uid: 107 }, 'porthos', unit), [
    'QEMU runs as user 107 here, and will run as root on porthos',
    'QEMU is in vm.service here, and will be in the session of ssh on porthos, without its limits',
    'vm.service is enabled: it starts the VM here again at the next boot; disable it',
  ]);
  for (const argv of [
    ['-runas', 'qemu'],
    ['-run-with', 'chroot=/x,user=qemu'],
  ]) {
    assert.deepEqual(notesOf({ argv, uid: 107 }, 'porthos', undefined), []);
  }
});
