/* The receiving QEMU's command line: the running one's, with what belongs to the place replaced. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  guestName,
  machineType,
  neededFiles,
  qmpPath,
  receivingCommand,
  socketPaths,
  tapNetdevs,
} from '../../src/migrate/qemu-command.js';
import { formatOption, optionValue, parseOption } from '../../src/migrate/qemu-option.js';

const INCOMING = ' -S -incoming defer';

/** `in` and `out` as one types them; every tap gets descriptor 3, 4, ... */
function derive(o: { in: string; out: string; paths?: Record<string, string> }): void {
  const argv = o.in.split(' ');
  const tapFds = new Map(tapNetdevs(argv).map(({ at }, n) => [at, 3 + n]));
  const paths = new Map(Object.entries(o.paths ?? {}));
  assert.equal(receivingCommand(argv, { tapFds, paths }).join(' '), o.out + INCOMING);
}

describe('what is replaced', () => {
  test('a tap is an inherited descriptor, however it was got before', () => {
    for (const tap of [
      'tap,id=net0,ifname=vnet0,script=no,downscript=no',
      'tap,id=net0,ifname=vnet0,script=/etc/ifup,,odd,downscript=no',
      'tap,ifname=vnet0,id=net0',
      'type=tap,id=net0',
      'bridge,id=net0,br=br0,helper=/usr/lib/qemu-bridge-helper',
      '{"type":"tap","id":"net0","ifname":"vnet0"}',
    ]) {
      derive({
        in: `-m 64 -netdev ${tap} -device virtio-net-pci,netdev=net0`,
        out: '-m 64 -netdev tap,id=net0,fd=3 -device virtio-net-pci,netdev=net0',
      });
    }
  });

  test('vhost stays, whoever has opened it before', () => {
    for (const tap of [
      'tap,id=net0,vhost=on,ifname=vnet0,script=no',
      'tap,id=net0,fd=25,vhost=on,vhostfd=26',
      'tap,id=net0,fd=25,vhostfd=26',
      '{"type":"tap","id":"net0","vhost":true}',
    ]) {
      derive({ in: `-netdev ${tap}`, out: '-netdev tap,id=net0,vhost=on,fd=3' });
    }
    derive({
      in: '-netdev tap,id=net0,vhost=on,vhostforce=on,poll-us=50',
      out: '-netdev tap,id=net0,vhost=on,vhostforce=on,poll-us=50,fd=3',
    });
  });

  test('our own QMP is there once, however often it has moved, and is never the VM’s', () => {
    const ownQmp = '/run/tiflow/migrations/vm-1.d/qmp.sock';
    const place = { tapFds: new Map(), paths: new Map() };
    const argv = ['-name', 'vm', '-qmp', 'unix:/run/vm.qmp,server=on'];
    const once = receivingCommand(argv, { ...place, ownQmp: '/elsewhere.sock' });
    const twice = receivingCommand(once, { ...place, ownQmp });
    assert.deepEqual(twice, [
      ...argv,
      ...['-chardev', `socket,id=tiflow-qmp,path=${ownQmp},server=on,wait=off`],
      ...['-mon', 'chardev=tiflow-qmp,mode=control', '-S', '-incoming', 'defer'],
    ]);
    assert.equal(qmpPath(twice), '/run/vm.qmp');
    assert.deepEqual(socketPaths(twice), ['/run/vm.qmp']);
  });

  test('two taps, one of them by -nic', () => {
    derive({
      in: '-nic tap,model=virtio-net-pci,mac=52:54:00:00:00:01,ifname=a -netdev tap,id=b,ifname=b',
      out: '-nic tap,model=virtio-net-pci,mac=52:54:00:00:00:01,fd=3 -netdev tap,id=b,fd=4',
    });
  });

  test('other network backends stay', () => {
    derive({ in: '-netdev user,id=n -nic none', out: '-netdev user,id=n -nic none' });
  });

  test('how it was started goes', () => {
    derive({
      in: '-name vm -daemonize -S -pidfile /run/vm.pid -incoming tcp:0:4444 -nodefaults --preconfig',
      out: '-name vm -nodefaults',
    });
  });

  test('options with two dashes are the same options', () => {
    derive({ in: '--name vm --daemonize --m 64', out: '-name vm -m 64' });
  });

  test('an alias of a machine becomes the machine', () => {
    const rows: [string, string][] = [
      ['-machine pc,accel=tcg', '-machine pc-i440fx-7.2,accel=tcg'],
      ['-machine type=pc,accel=tcg', '-machine pc-i440fx-7.2,accel=tcg'],
      ['-M pc -machine accel=tcg', '-M pc-i440fx-7.2 -machine accel=tcg'],
      ['-m 64', '-m 64 -machine type=pc-i440fx-7.2'],
    ];
    for (const [before, after] of rows) {
      const place = { machine: 'pc-i440fx-7.2', tapFds: new Map(), paths: new Map() };
      assert.equal(receivingCommand(before.split(' '), place).join(' '), after + INCOMING);
    }
  });

  test('sockets and files that are taken there', () => {
    const paths = { '/run/vm.qmp': '/run/vm-2.qmp', '/run/s': '/run/s-2', '/run/c': '/run/c-2' };
    derive({
      in: '-qmp unix:/run/vm.qmp,server=on,wait=off -serial unix:/run/s,server -monitor none -serial mon:stdio',
      out: '-qmp unix:/run/vm-2.qmp,server=on,wait=off -serial unix:/run/s-2,server=on -monitor none -serial mon:stdio',
      paths,
    });
    derive({
      in: '-chardev socket,id=c,path=/run/c,server=on,wait=off -serial file:/run/s',
      out: '-chardev socket,id=c,path=/run/c-2,server=on,wait=off -serial file:/run/s-2',
      paths,
    });
  });

  test('disks that are copied to another path', () => {
    const paths = { '/vm/a.img': '/new/a,b.img' };
    const rows: [string, string][] = [
      ['-drive file=/vm/a.img,format=raw', '-drive file=/new/a,,b.img,format=raw'],
      ['-hda /vm/a.img', '-hda /new/a,b.img'],
      ['/vm/a.img', '/new/a,b.img'],
      [
        '-blockdev driver=raw,node-name=d,file.driver=file,file.filename=/vm/a.img',
        '-blockdev driver=raw,node-name=d,file.driver=file,file.filename=/new/a,,b.img',
      ],
      [
        '-blockdev {"driver":"raw","node-name":"d","file":{"driver":"file","filename":"/vm/a.img"}}',
        '-blockdev {"driver":"raw","node-name":"d","file":{"driver":"file","filename":"/new/a,b.img"}}',
      ],
      ['-drive file=/vm/a.img.old,format=raw', '-drive file=/vm/a.img.old,format=raw'],
    ];
    for (const [before, after] of rows) derive({ in: before, out: after, paths });
  });
});

describe('what is read', () => {
  test('the name', () => {
    assert.equal(guestName(['-name', 'vm']), 'vm');
    assert.equal(guestName(['-name', 'guest=vm,debug-threads=on']), 'vm');
    assert.equal(guestName(['-name', 'one,,two,process=x']), 'one,two');
    assert.equal(guestName(['-m', '-name', '64']), undefined);
  });

  test('the machine', () => {
    assert.equal(machineType(['-machine', 'pc-q35-7.2,accel=tcg']), 'pc-q35-7.2');
    assert.equal(machineType(['-M', 'type=q35']), 'q35');
    assert.equal(machineType(['-machine', 'accel=tcg']), undefined);
  });

  test('the QMP socket, also as chardev and monitor', () => {
    assert.equal(qmpPath(['-qmp', 'unix:/run/a,,b.qmp,server=on,wait=off']), '/run/a,b.qmp');
    const socket = ['-chardev', 'socket,id=q,path=/run/q,server=on', '-chardev', 'stdio,id=s'];
    assert.equal(qmpPath([...socket, '-mon', 'chardev=q,mode=control']), '/run/q');
    assert.equal(qmpPath([...socket, '-mon', 'q']), undefined);
    assert.equal(qmpPath(['-qmp', 'tcp:localhost:4444']), undefined);
  });

  test('sockets it listens on, files it needs', () => {
    const argv = '-qmp unix:/q,server=on -chardev socket,id=c,path=/c,server=on -serial unix:/s';
    assert.deepEqual(socketPaths(argv.split(' ')), ['/q', '/c', '/s']);
    assert.deepEqual(neededFiles('-kernel /k -initrd i -append -bios'.split(' ')), ['/k']);
  });

  test('a tap with several queues is refused, and why', () => {
    assert.throws(
      () => tapNetdevs(['-netdev', 'tap,id=n,queues=4']),
      /-netdev tap,id=n,queues=4: a tap with several queues .* restart the VM without "queues"/,
    );
  });
});

const word = fc.string({ minLength: 1, unit: fc.constantFrom('a', 'Z', '1', ',', '=', '/', ' ') });

test('any values, however many commas: what was parsed is what was meant', () => {
  const key = fc.constantFrom('id', 'file', 'file.filename', 'cache.direct');
  fc.assert(
    fc.property(fc.array(fc.tuple(key, word)), (keys) => {
      const text = formatOption({ head: 'driver', keys });
      assert.deepEqual(parseOption(text), { head: 'driver', keys });
    }),
  );
});

test('a path in a disk is replaced, wherever it stands, and nothing else is changed', () => {
  fc.assert(
    fc.property(word, word, word, (path, moved, other) => {
      fc.pre(path !== other);
      const before = formatOption({
        head: undefined,
        keys: [
          ['file', path],
          ['serial', other],
        ],
      });
      const place = { tapFds: new Map(), paths: new Map([[path, moved]]) };
      const [, after = ''] = receivingCommand(['-drive', before], place);
      assert.equal(optionValue(parseOption(after), 'file'), moved);
      assert.equal(optionValue(parseOption(after), 'serial'), other);
    }),
  );
});

test('derived twice is derived once: a VM can move on from where it came to', () => {
  const argv = '-name vm -netdev tap,id=n,ifname=t -qmp unix:/q,server=on -incoming defer'.split(
    ' ',
  );
  const again = (words: string[]) =>
    receivingCommand(words, {
      tapFds: new Map(tapNetdevs(words).map(({ at }) => [at, 3])),
      paths: new Map(),
    });
  const once = again(argv);
  assert.equal(tapNetdevs(once)[0]?.fd, 3);
  const twice = again(once);
  assert.deepEqual(twice, once);
});
