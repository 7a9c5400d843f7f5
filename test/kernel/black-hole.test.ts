/*
 * A path that swallows large packets and says nothing (topology: ../link/network.ts; the router
 * drops what is longer than MTU towards aramis): Linux does not find out by itself, and believes
 * at once what it is told.  RFC 2923, section 2.1; tcp_mtu_probing in ip-sysctl.rst.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { packetTooBig } from '../../src/wire/icmp.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

const MTU = 1280;
const LARGE = 'z'.repeat(5000);
/* By then the kernel has sent again three times: after 0.2, 0.6 and 1.4 s. */
const BY_ITSELF_MS = 2000;
const TOLD_MS = 500;

const network = new Network();
after(() => network.close());

describe('a black hole for large packets', () => {
  const raw = new RawSender();

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
    // The rule judges what it sees by its length, and must not see several segments in one.
    network.ip('vm', ['link set eth0 gso_max_segs 1']);
  });
  after(() => raw.close());

  const blackHole = (open: boolean): void => {
    const nft = (...commands: string[]) => network.run('router', 'nft', commands.join('; '));
    nft('add table inet hole', 'delete table inet hole');
    if (!open) return;
    nft(
      'add table inet hole',
      'add chain inet hole c { type filter hook forward priority 0; }',
      `add rule inet hole c oifname aramis0 meta length > ${MTU} drop`,
    );
  };

  for (const family of [4, 6] as const) {
    it(`IPv${family}: the kernel stays in it until it is told the path MTU`, async () => {
      await network.reaches(family, 7000);
      const connection = await Connection.open(vmAddress('athos', family), FAR[family], 7000);
      assert.ok(await connection.works('before'));
      const { mss } = connection.info();
      blackHole(true);
      connection.write(LARGE);
      assert.equal(await connection.echoed(LARGE, BY_ITSELF_MS), undefined, 'came by itself');
      assert.equal(connection.info().mss, mss);
      const { sndUna } = connection.position();
      raw.toKernel(packetTooBig(connection.quoted(sndUna), FAR[family], MTU));
      await until('smaller segments', () => connection.info().mss <= MTU - 40, 100);
      assert.notEqual(await connection.echoed(LARGE, TOLD_MS), undefined);
      blackHole(false);
      connection.close();
    });
  }
});
