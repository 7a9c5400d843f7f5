/* What command lines and network managers say about whose the addresses of an interface are. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  dhclientInterfaces,
  networkdSays,
  networkManagerSays,
  udhcpcIdentity,
  udhcpcInterface,
} from '../../src/link/lease-owner.js';

describe('the interface of a command line', () => {
  for (const [line, name] of [
    ['', 'eth0'],
    ['-i eth1', 'eth1'],
    ['-ieth1', 'eth1'],
    ['-fqi eth1', 'eth1'],
    ['--interface eth1', 'eth1'],
    ['--interface=eth1 -q', 'eth1'],
    ['-f -s /etc/script -i eth1 -p /run/pid', 'eth1'],
    ['-x hostname:i -i eth1', 'eth1'],
    ['-p /run/-i -i', ''],
  ] as const) {
    it(`udhcpc ${line}`, () => assert.equal(udhcpcInterface(line.split(' ')), name));
  }

  for (const [line, names] of [
    ['-v', []],
    ['-v eth1', ['eth1']],
    ['-4 -pf /run/dhclient.pid -lf /var/lib/leases eth1 eth2', ['eth1', 'eth2']],
    ['-e NAME=eth0 -D LL eth1', ['eth1']],
  ] as const) {
    it(`dhclient ${line}`, () => assert.deepEqual(dhclientInterfaces(line.split(' ')), names));
  }
});

describe('the name of a lease of udhcpc', () => {
  for (const [line, clientId, certain] of [
    ['-i eth0', 'hardware', true],
    ['-fC -i eth0', undefined, true],
    ['-x 61:01aabb -i eth0', undefined, false],
    ['-x 0x3d:01aabb', undefined, false],
    ['-x hostname:C', 'hardware', true],
  ] as const) {
    it(line, () => assert.deepEqual(udhcpcIdentity(line.split(' ')), { clientId, certain }));
  }
});

/* As version 1.42 says it. */
const nm = (state: string, type: string, ...options: string[]) =>
  [
    `GENERAL.STATE:${state}`,
    `GENERAL.TYPE:${type}`,
    ...options.map((option, n) => `DHCP4.OPTION[${n + 1}]:${option}`),
    '',
  ].join('\n');

describe('NetworkManager', () => {
  const options = [
    'dhcp_client_identifier = 01:82:7d:44:f2:b0:15',
    'dhcp_server_identifier = 10.1.0.1',
  ];

  it('has a lease, and may be told', () => {
    const clientId = Uint8Array.from(Buffer.from('01827d44f2b015', 'hex'));
    assert.deepEqual(networkManagerSays(nm('100 (connected)', 'ethernet', ...options)), {
      ...{ kind: 'manager', name: 'NetworkManager', mayBeTold: 'yes' },
      identity: { clientId, certain: true },
    });
  });

  for (const [what, said] of [
    ['disconnected by its user', nm('30 (disconnected)', 'ethernet')],
    ['at it: not now', nm('70 (connecting (getting IP configuration))', 'ethernet', ...options)],
    ['without DHCP', nm('100 (connected)', 'ethernet')],
    ['a bridge, whose ports would go', nm('100 (connected)', 'bridge', ...options)],
    ['a bond', nm('100 (connected)', 'bond', ...options)],
  ] as const) {
    it(`is not told: ${what}`, () => {
      const owner = networkManagerSays(said);
      const expected = what.endsWith('not now') ? 'not now' : 'never';
      assert.equal(owner?.kind === 'manager' && owner.mayBeTold, expected);
    });
  }

  for (const said of [nm('10 (unmanaged)', 'ethernet'), nm('0 (unknown)', 'tun'), '']) {
    it(`does not manage it: ${said.split('\n')[0]}`, () => {
      assert.equal(networkManagerSays(said), undefined);
    });
  }
});

describe('systemd-networkd', () => {
  it('has a lease', () => {
    assert.deepEqual(networkdSays('ADMIN_STATE=configured\n', 'T1=1800\nCLIENTID=ff01\n'), {
      ...{ kind: 'manager', name: 'systemd-networkd', mayBeTold: 'yes' },
      identity: { clientId: Uint8Array.of(0xff, 1), certain: true },
    });
  });

  it('has given static addresses: it is not told', () => {
    assert.deepEqual(networkdSays('ADMIN_STATE=configured\n', ''), {
      ...{ kind: 'manager', name: 'systemd-networkd', mayBeTold: 'never' },
      identity: undefined,
    });
  });

  for (const link of ['ADMIN_STATE=unmanaged\n', '']) {
    it(`does not manage it: ${link}`, () => assert.equal(networkdSays(link, ''), undefined));
  }
});
