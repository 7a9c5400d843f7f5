/*
 * A kick that comes by the link, as the guest behind a tap gets it, and not from inside (topology:
 * ../link/network.ts; athos sends it, the router is black meanwhile).  IPv4 takes nothing from its
 * own address that comes by a link: fib_validate_source(), "martian source".
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import type { Address } from '../../src/wire/address.js';
import { hostUnreachable } from '../../src/wire/icmp.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

/* The next retransmission by itself is more than 1.5 s away then. */
const BACKOFF = 3;
const KICKED_MS = 150;

const network = new Network();
after(() => network.close());

describe('a kick by the link', () => {
  const athos = network.inside('athos', () => new RawSender());

  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
  });
  after(() => athos.close());

  const black = (on: boolean): void => {
    const nft = (...commands: string[]) => network.run('router', 'nft', commands.join('; '));
    nft('add table inet black', 'delete table inet black');
    if (!on) return;
    const forward = 'type filter hook forward priority 0; policy drop;';
    nft('add table inet black', `add chain inet black c { ${forward} }`);
  };

  for (const family of [4, 6] as const) {
    const local = vmAddress('athos', family);

    async function kickedFrom(source: Address): Promise<boolean> {
      await network.reaches(family, 7000);
      const connection = await Connection.open(local, FAR[family], 7000);
      assert.ok(await connection.works('before'));
      black(true);
      connection.write('black');
      await until('the kernel to back off', () => connection.info().backoff >= BACKOFF, 8000);
      black(false);
      assert.equal(await connection.echoed('black', KICKED_MS), undefined, 'came by itself');
      const message = hostUnreachable(connection.quoted(connection.position().sndUna), source);
      for (let i = 0; i < 5; i++) athos.toWire(message);
      const came = (await connection.echoed('black', KICKED_MS)) !== undefined;
      connection.close();
      return came;
    }

    it(`IPv${family}: works in the far end's name`, async () => {
      assert.equal(await kickedFrom(FAR[family]), true);
    });

    it(`IPv${family}: ${family === 4 ? 'does nothing' : 'works'} in its own`, async () => {
      assert.equal(await kickedFrom(local), family === 6);
    });
  }
});
