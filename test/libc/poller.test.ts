/* What a poller promises: to call back, to survive, and not to keep a process alive. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { SystemError } from '../../src/libc/errno.js';
import { Poller } from '../../src/libc/poller.js';
import {
  AF_NETLINK,
  bindNetlink,
  closeFd,
  NETLINK_ROUTE,
  netlinkPort,
  netlinkSockaddr,
  openSocket,
  receive,
  SO_RCVBUF,
  SOCK_RAW,
  SOL_SOCKET,
  sendTo,
  setOption,
} from '../../src/libc/socket.js';
import { ownNetwork } from './own-network.js';

ownNetwork();

const module = (name: string): string => new URL(`../../src/libc/${name}.js`, import.meta.url).href;

function netlinkSocket(): { fd: number; port: number } {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  bindNetlink(fd, 0);
  return { fd, port: netlinkPort(fd) };
}

/** RTM_GETLINK, all interfaces: the kernel answers to `fd`. */
function requestLinks(fd: number): void {
  const message = Buffer.alloc(32);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(18, 4);
  message.writeUInt16LE(0x301, 6);
  sendTo(fd, message, netlinkSockaddr());
}

/** Resolves when `ready` does, or fails after a second: a poller does not keep us alive. */
async function within<T>(ready: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('nothing became readable')), 1000);
  });
  return Promise.race([ready, late]).finally(() => clearTimeout(timer));
}

function drain(fd: number): number {
  const buffer = Buffer.alloc(65536);
  let messages = 0;
  while (receive(fd, buffer) > 0) messages += 1;
  return messages;
}

test('calls back when there is something to read, again and again', async () => {
  const poller = new Poller();
  const { fd } = netlinkSocket();
  for (let round = 0; round < 3; round++) {
    const readable = new Promise<void>((resolve) => poller.add(fd, resolve));
    requestLinks(fd);
    await within(readable);
    assert.ok(drain(fd) > 0);
    poller.remove(fd);
  }
  poller.close();
  closeFd(fd);
});

test('calls back again if not all was read, and promises go on at once', async () => {
  const poller = new Poller();
  const { fd } = netlinkSocket();
  const buffer = Buffer.alloc(65536);
  let calls = 0;
  const done = new Promise<void>((resolve) => {
    poller.add(fd, () => {
      calls += 1;
      if (receive(fd, buffer) < 0) return;
      Promise.resolve().then(() => calls >= 2 && resolve());
    });
  });
  requestLinks(fd); // answered by at least two datagrams: links, and the end
  await within(done);
  poller.close();
  closeFd(fd);
});

test('goes on after an overrun, which netlink tells by an error', async () => {
  const poller = new Poller();
  const { fd } = netlinkSocket();
  setOption(fd, SOL_SOCKET, SO_RCVBUF, 1);
  const RTNLGRP_LINK = 1;
  const listener = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  bindNetlink(listener, RTNLGRP_LINK);
  setOption(listener, SOL_SOCKET, SO_RCVBUF, 1);
  for (let n = 0; n < 20; n++) overrun();
  const errors: unknown[] = [];
  let events = 0;
  const recovered = new Promise<void>((resolve) => {
    poller.add(listener, () => {
      try {
        events += drain(listener);
      } catch (error) {
        errors.push(error);
        setImmediate(overrun);
        return;
      }
      if (errors.length > 0 && events > 0) resolve();
    });
  });
  await within(recovered);
  assert.ok(errors[0] instanceof SystemError && errors[0].code === 'ENOBUFS');
  poller.close();
  closeFd(fd);
  closeFd(listener);
});

/** Makes the kernel tell of link changes: lo's queue length, set to what it is. */
function overrun(): void {
  const set = ['link', 'set', 'dev', 'lo', 'txqueuelen'];
  spawnSync('ip', [...set, '1001']);
  spawnSync('ip', [...set, '1000']);
}

test('an exception of the callback is an ordinary uncaught exception', () => {
  const script = `
    import { Poller } from '${module('poller')}';
    import * as s from '${module('socket')}';
    const fd = s.openSocket(s.AF_NETLINK, s.SOCK_RAW, s.NETLINK_ROUTE);
    s.bindNetlink(fd, 0);
    new Poller().add(fd, () => { throw new Error('from the callback'); });
    const m = Buffer.alloc(32); m.writeUInt32LE(32); m.writeUInt16LE(18, 4); m.writeUInt16LE(0x301, 6);
    s.sendTo(fd, m, s.netlinkSockaddr());
    setTimeout(() => {}, 500);`;
  const { status, stderr } = spawnNode(script);
  assert.equal(status, 1);
  assert.match(stderr, /from the callback/);
});

test('a process with an open poller ends', () => {
  const script = `
    import { Poller } from '${module('poller')}';
    import * as s from '${module('socket')}';
    const fd = s.openSocket(s.AF_NETLINK, s.SOCK_RAW, s.NETLINK_ROUTE);
    new Poller().add(fd, () => {});`;
  assert.equal(spawnNode(script).status, 0);
  assert.equal(spawnNode(`${script}\nprocess.exit(3);`).status, 3);
  const killed = `${script}\nsetTimeout(() => process.kill(process.pid), 10); setInterval(() => {}, 50);`;
  assert.equal(spawnNode(killed).signal, 'SIGTERM');
});

test('watching twice is our bug; removing what is not watched is not', () => {
  const poller = new Poller();
  const { fd } = netlinkSocket();
  poller.add(fd, () => {});
  assert.throws(() => poller.add(fd, () => {}), /watched already/);
  poller.remove(fd);
  poller.remove(fd);
  poller.add(fd, () => {});
  poller.close();
  closeFd(fd);
});

test('polls survive garbage collection', async () => {
  const script = `
    import { Poller } from '${module('poller')}';
    import * as s from '${module('socket')}';
    const fd = s.openSocket(s.AF_NETLINK, s.SOCK_RAW, s.NETLINK_ROUTE);
    s.bindNetlink(fd, 0);
    (() => { new Poller().add(fd, () => { console.log('readable'); process.exit(0); }); })();
    for (let i = 0; i < 5; i++) { globalThis.gc(); await new Promise((r) => setTimeout(r, 10)); }
    const m = Buffer.alloc(32); m.writeUInt32LE(32); m.writeUInt16LE(18, 4); m.writeUInt16LE(0x301, 6);
    s.sendTo(fd, m, s.netlinkSockaddr());
    setTimeout(() => process.exit(9), 500);`;
  const { status, stdout } = spawnNode(script, '--expose-gc');
  assert.equal(status, 0);
  assert.match(stdout, /readable/);
});

function spawnNode(script: string, ...flags: string[]) {
  const args = [...flags, '--input-type=module', '-e', script];
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 5000 });
}
