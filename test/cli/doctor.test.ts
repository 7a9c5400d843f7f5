/* What doctor concludes from what it finds; what it finds on this machine is not of interest. */

import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { describe, test } from 'node:test';
import { withKernelAdvice } from '../../src/cli/daemon.js';
import { type Check, fail, ok, warn } from '../../src/cli/doctor/check.js';
import {
  checkConfig,
  checkSecrets,
  describeAbsence,
  describeDaemon,
} from '../../src/cli/doctor/daemon.js';
import { checkFilesystem, checkRelease } from '../../src/cli/doctor/kernel.js';
import {
  checkDefaultRoutes,
  checkFilters,
  checkLink,
  checkReversePath,
  checkSameSubnet,
  checkSourcePorts,
  defaultInterfaces,
} from '../../src/cli/doctor/network.js';
import { checkRenewal } from '../../src/cli/doctor/renewal.js';
import { describeStuck } from '../../src/cli/doctor/stuck.js';
import { formatChecks } from '../../src/cli/doctor.js';
import { explainError } from '../../src/cli/exit.js';
import { missingCapabilities } from '../../src/cli/privileges.js';
import { plain } from '../../src/cli/table.js';
import type { FlowView } from '../../src/daemon/view/view.js';
import { SystemError } from '../../src/libc/errno.js';
import { FLOWS, STATUS } from '../daemon/fake-control.js';
import { temporaryDirectory, temporaryFile } from '../daemon/temporary.js';
import { tiflow } from './tiflow.js';

const levels = (checks: readonly Check[]) =>
  checks.map((check) => `${check.level} ${check.id}: ${check.message}`);

describe('kernel and privileges', () => {
  test('release', () => {
    const rows: [string, string][] = [
      ['6.18.44-fc-v657', 'ok'],
      ['5.17.0', 'ok'],
      ['5.16.20-default', 'warn'],
      ['4.19.0-27-amd64', 'warn'],
      ['nonsense', 'warn'],
    ];
    for (const [release, level] of rows) assert.equal(checkRelease(release).level, level, release);
  });

  test('an old kernel is named beside what it refused', () => {
    const refused = new SystemError('load the data plane', 22);
    assert.equal(withKernelAdvice(refused, '6.1.0'), refused);
    const other = new TypeError('ours');
    assert.equal(withKernelAdvice(other, '4.19.0'), other);
    const explained = explainError(withKernelAdvice(refused, '4.19.0'));
    assert.deepEqual(explained, {
      exit: 1,
      text:
        'load the data plane: EINVAL\n' +
        'Linux 4.19.0 is older than 5.17 (tiflow doctor tells what is missing)',
    });
    const denied = withKernelAdvice(new SystemError('load the data plane', 1), '4.19.0');
    assert.equal(explainError(denied).exit, 4);
  });

  test('bpffs', () => {
    assert.equal(checkFilesystem('nodev\tsysfs\nnodev\tbpf\n\text4\n').level, 'ok');
    assert.equal(checkFilesystem('nodev\tsysfs\n\text4\n').level, 'fail');
  });

  test('capabilities', () => {
    const status = (capEff: string) => `Name:\tnode\nCapEff:\t${capEff}\nCapBnd:\t0\n`;
    assert.deepEqual(missingCapabilities(undefined, status('000001ffffffffff')), []);
    assert.deepEqual(missingCapabilities(undefined, status('0000000000000000')), [
      'CAP_BPF',
      'CAP_NET_ADMIN',
      'CAP_NET_RAW',
      'CAP_SYS_ADMIN',
    ]);
    // CAP_SYS_ADMIN (21) stands in for CAP_BPF (39).
    assert.deepEqual(missingCapabilities(undefined, status('0000000000203000')), []);
    assert.deepEqual(missingCapabilities(undefined, status('0000008000003000')), ['CAP_SYS_ADMIN']);
  });
});

describe('interfaces', () => {
  const link = (more: object) =>
    JSON.stringify([
      { ifname: 'x', flags: ['UP', 'LOWER_UP'], mtu: 1500, link_type: 'ether', ...more },
    ]);

  test('link', () => {
    const good = ['ok x.kind: Ethernet', 'ok x.carrier: up, with carrier', 'ok x.mtu: MTU 1500'];
    assert.deepEqual(levels(checkLink('x', link({}))), good);
    assert.deepEqual(
      levels(checkLink('x', link({ link_type: 'none', flags: ['UP'], mtu: 1000 }))),
      [
        'fail x.kind: link type none: the boundary needs Ethernet',
        'warn x.carrier: no carrier',
        'warn x.mtu: MTU 1000 is below 1280',
      ],
    );
    assert.match(levels(checkLink('x', link({ flags: [] })))[1] ?? '', /warn x.carrier: down/);
    assert.match(
      levels(checkLink('x', link({ operstate: 'DORMANT' })))[1] ?? '',
      /warn x.carrier: connected, but dormant/,
    );
    for (const nothing of ['', 'no JSON', '{}', '[]']) {
      assert.deepEqual(levels(checkLink('x', nothing)), [
        'warn x.link: not checked: ip gave no answer',
      ]);
    }
  });

  test('another interface of the same subnet, without a boundary', () => {
    const link = (ifname: string, local: string, prefixlen: number) => ({
      ...{ ifname, addr_info: [{ family: 'inet', local, prefixlen }] },
    });
    const links = JSON.stringify([
      link('lo', '127.0.0.1', 8),
      link('eth0', '192.0.2.10', 24),
      link('eth1', '192.0.2.20', 24),
      link('eth2', '198.51.100.1', 24),
      link('eth3', '192.0.2.30', 32),
    ]);
    const found = (names: string[], ignoring: string[] = []) =>
      checkSameSubnet('eth0', links, names, (name) => (ignoring.includes(name) ? 1 : 0));
    const [only, ...more] = found(['eth0']);
    assert.deepEqual(more, []);
    assert.match(only?.message ?? '', /^eth1 is in the same subnet and has no boundary/);
    assert.deepEqual(found(['eth0', 'eth1']), []);
    assert.deepEqual(found(['eth0'], ['eth1']), []);
  });

  test('reverse path filter: the stricter of both counts, loose is more than strict', () => {
    const level = (all: number, own: number) => checkReversePath('x', all, own)[0]?.level;
    assert.equal(level(0, 0), 'ok');
    assert.equal(level(1, 0), 'warn');
    assert.equal(level(0, 1), 'warn');
    assert.equal(level(1, 2), 'ok');
    assert.match(checkReversePath('x', 0, 1)[0]?.advice ?? '', /conf\.x\.rp_filter=2/);
    assert.match(checkReversePath('x', 1, 0)[0]?.advice ?? '', /conf\.all\.rp_filter=2/);
  });

  test('other filters', () => {
    const filter = (name: string) => [
      { protocol: 'all', pref: 1, kind: 'bpf', chain: 0 },
      { protocol: 'all', pref: 1, kind: 'bpf', chain: 0, options: { bpf_name: `${name}:[7]` } },
    ];
    const level = (...names: string[]) =>
      checkFilters('x', JSON.stringify(names.flatMap(filter))).level;
    assert.equal(level(), 'ok');
    assert.equal(level('boundary_ingres', 'boundary_egress'), 'ok');
    assert.equal(level('boundary_egress', 'cil_to_netdev'), 'warn');
    assert.equal(checkFilters('x', undefined).message, 'not checked: tc gave no answer');
  });

  test('default routes', () => {
    const ipv4 =
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n' +
      'eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n' +
      'eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n';
    const zero = '0'.repeat(32);
    const ipv6 =
      `${zero} 00 ${zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003    wlan0\n` +
      `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo\n`;
    assert.deepEqual(defaultInterfaces(ipv4, ipv6), { ipv4: ['eth0'], ipv6: ['wlan0'] });
    assert.deepEqual(levels(checkDefaultRoutes(ipv4, '')), [
      'ok routes.default: IPv4 by eth0; none for IPv6',
    ]);
    assert.deepEqual(levels(checkDefaultRoutes('', '')), ['warn routes.default: no default route']);
  });

  test("ports after a move must not be the kernel's own", () => {
    const level = (first: number, last: number) =>
      checkSourcePorts({ first, last }, '32768\t60999\n').level;
    assert.equal(level(61_000, 65_535), 'ok');
    assert.equal(level(20_000, 32_767), 'ok');
    assert.equal(level(60_999, 65_535), 'warn');
    assert.equal(level(20_000, 65_535), 'warn');
    assert.equal(level(40_000, 41_000), 'warn');
  });

  test('a configured renewal is believed', async () => {
    assert.deepEqual(levels(await checkRenewal('x', 'renew-it')), [
      'ok x.renewal: renewed by: renew-it',
    ]);
  });
});

describe('daemon and configuration', () => {
  test('alive', () => {
    assert.deepEqual(levels(describeDaemon(STATUS, '0.1.0')), [
      'ok daemon: running, version 0.1.0, pid 4711',
      'ok daemon.attached: attached to eth0',
    ]);
    assert.deepEqual(levels(describeDaemon({ ...STATUS, interfaces: [] }, '0.2.0')), [
      'warn daemon: running version 0.1.0, this is 0.2.0',
      'warn daemon.attached: attached to no interface: nothing is protected',
    ]);
  });

  test('absent or dead', () => {
    assert.equal(describeAbsence('/run/tiflow', false).level, 'warn');
    assert.equal(describeAbsence('/run/tiflow', true).level, 'fail');
  });

  test('a key that others can read, inline or in its file', (t) => {
    const secret = Buffer.alloc(32, 7).toString('base64');
    const file = temporaryFile(t, 'key', secret);
    const text = `[psk]\nkey_id = 1\nkeys = { "1" = "${file}", "2" = "${secret}" }`;
    const path = temporaryFile(t, 'tiflow.toml', text);
    const { checks, config } = checkConfig(path);
    assert.ok(config);
    assert.deepEqual(levels(checks), [
      `ok config: ${path}`,
      `ok psk.permissions: ${file} has mode 0600`,
      `ok psk.permissions: ${path} has mode 0600`,
    ]);
    chmodSync(file, 0o640);
    const [open] = checkSecrets(config, path);
    assert.equal(open?.level, 'fail');
    assert.equal(open?.message, `${file} has mode 0640: others can use the key`);
    assert.equal(open?.advice, `chmod 600 ${file}`);
  });

  test('a broken configuration', (t) => {
    const path = temporaryFile(t, 'tiflow.toml', 'x = 1');
    assert.deepEqual(levels(checkConfig(path).checks), [`fail config: ${path}:1: x: unknown key`]);
  });
});

describe('flows that are stuck', () => {
  const moved = {
    ...{ kernel: '192.0.2.10:22 > 203.0.113.7:40000', moves: 1 },
    wire: '198.51.100.7:22 > 203.0.113.7:40000',
  };
  const stuck = (o: Partial<FlowView> = {}): FlowView[] =>
    FLOWS.slice(0, 1).map((flow) => ({ ...flow, state: 'stuck', ...o }));
  const there = () => [];

  test('none', () => assert.deepEqual(describeStuck(FLOWS, there), []));

  test('what is missing of what an address needs that is gone', () => {
    const asked: string[] = [];
    const checks = describeStuck(stuck(moved), (a) => {
      asked.push(a);
      return ['IPv4 rule 99: iif eth0 ipproto 6 lookup 21577'];
    });
    assert.deepEqual(asked, ['192.0.2.10']);
    assert.deepEqual(levels(checks), [
      `fail flows.stuck: ${moved.kernel}: missing: ` +
        'IPv4 rule 99: iif eth0 ipproto 6 lookup 21577',
    ]);
  });

  test('nothing is missing: our own counter, or somebody else', () => {
    assert.deepEqual(levels(describeStuck(stuck({ ...moved, reason: 'old-path' }), there)), [
      `warn flows.stuck: ${moved.kernel}: dropped, and counted as old-path`,
    ]);
    assert.deepEqual(levels(describeStuck(stuck(moved), there)), [
      `warn flows.stuck: ${moved.kernel}: dropped behind the boundary, by no counter of tiflow, ` +
        'and its rules and routes are there',
    ]);
    assert.deepEqual(levels(describeStuck(stuck(), () => undefined)), [
      `warn flows.stuck: ${stuck()[0]?.kernel}: dropped behind the boundary, ` +
        'by no counter of tiflow',
    ]);
  });

  test("many flows of one address are one check; a guest's, or of a host behind, has none here", () => {
    const kernel = '[2001:db8:2::7]:22 > [2001:db8:3::7]:40000';
    const flows = [...stuck({ kernel }), ...stuck({ kernel }), ...stuck({ kernel, tap: 'vnet0' })];
    const gone = (a: string) => (a === '2001:db8:2::7' ? ['rule 99'] : []);
    assert.deepEqual(levels(describeStuck(flows, gone)), [
      `fail flows.stuck: 2 flows such as ${kernel}: missing: rule 99`,
      `warn flows.stuck: ${kernel}: dropped behind the boundary, by no counter of tiflow`,
    ]);
    assert.equal(describeStuck(stuck({ kernel, forwarded: true }), gone)[0]?.level, 'warn');
  });
});

describe('the verb', () => {
  test('text', () => {
    const checks = [ok('a', 'fine'), warn('bbb', 'odd', 'look'), fail('c', 'bad', 'mend')];
    assert.deepEqual(formatChecks(checks, plain), [
      'ok    a    fine',
      'warn  bbb  odd',
      '      -> look',
      'fail  c    bad',
      '      -> mend',
    ]);
  });

  test('--json, and 1 where something fails', async (t) => {
    const runDir = temporaryDirectory(t);
    const ran = await tiflow(['doctor', 'nosuch0', '--json', '--run-dir', runDir]);
    assert.equal(ran.exit, 1);
    const view = JSON.parse(ran.stdout);
    assert.equal(view.version, 1);
    assert.equal(view.ok, false);
    for (const check of view.checks) {
      assert.deepEqual(Object.keys(check), ['id', 'level', 'message', 'advice']);
    }
    const missing = view.checks.find((check: Check) => check.id === 'nosuch0.exists');
    assert.equal(missing.message, 'no interface nosuch0');
  });
});
