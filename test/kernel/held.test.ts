/*
 * What TCP makes of packets that a tc program does not let out (topology: ../link/network.ts):
 * dropped is local congestion, swallowed is sent.  docs/decisions/0003.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { runCommand } from '../../src/lab/namespace.js';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { type Seq, seqAdd } from '../../src/wire/seq.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Connection } from './connection.js';

const KICKED_MS = 150;
const BACKOFF = 3;

/* TC_ACT_SHOT is 2, TC_ACT_STOLEN is 4; only TCP, so that neighbours are still resolved. */
const PROGRAM = `
struct __sk_buff { unsigned int len, pkt_type, mark, queue_mapping, protocol; };
#define SEC(name) __attribute__((section(name), used))
static int (*load)(struct __sk_buff *, unsigned, void *, unsigned) = (void *)26;
static int tcp_is(struct __sk_buff *skb, int verdict)
{
	unsigned char protocol = 0;
	load(skb, skb->protocol == 0x0008 ? 14 + 9 : 14 + 6, &protocol, 1);
	return protocol == 6 ? verdict : -1;
}
SEC("tc/shot") int shot(struct __sk_buff *skb) { return tcp_is(skb, 2); }
SEC("tc/stolen") int stolen(struct __sk_buff *skb) { return tcp_is(skb, 4); }
char gpl[] SEC("license") = "GPL";
`;

const network = new Network();
after(() => network.close());

describe('a packet that a tc program keeps back', () => {
  const raw = new RawSender();
  const object = join(network.directory, 'verdict.bpf.o');
  let connection: Connection;

  before(async () => {
    const source = join(network.directory, 'verdict.bpf.c');
    writeFileSync(source, PROGRAM);
    runCommand(['clang', '-O2', '-target', 'bpf', '-c', source, '-o', object]);
    network.run('vm', 'tc', 'qdisc', 'add', 'dev', 'eth0', 'clsact');
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
  });

  after(() => raw.close());

  afterEach(() => {
    connection.close();
    letOut();
  });

  const filter = (...argv: string[]) =>
    network.run(
      'vm',
      'tc',
      'filter',
      ...argv.slice(0, 1),
      'dev',
      'eth0',
      'egress',
      ...argv.slice(1),
    );
  const keepBack = (section: 'shot' | 'stolen') =>
    filter('add', 'bpf', 'da', 'obj', object, 'sec', `tc/${section}`);
  const letOut = () => filter('del');

  for (const family of [4, 6] as const) {
    const start = async () => {
      await network.reaches(family, 7000);
      connection = await Connection.open(vmAddress('athos', family), FAR[family], 7000);
      assert.ok(await connection.works('before'));
    };

    it(`IPv${family}: TC_ACT_SHOT is tried again and again, and never backed off`, async () => {
      await start();
      keepBack('shot');
      connection.write('shot');
      await sleep(2000);
      assert.equal(connection.info().backoff, 0);
    });

    it(`IPv${family}: TC_ACT_STOLEN is backed off, and the kick works`, async () => {
      await start();
      keepBack('stolen');
      connection.write('stolen');
      await until('a backoff', () => connection.info().backoff >= BACKOFF);
      letOut();
      assert.equal(await connection.echoed('stolen', KICKED_MS), undefined, 'came by itself');
      connection.kick(raw, 5);
      assert.notEqual(await connection.echoed('stolen', KICKED_MS), undefined);
    });

    /** The peer has 'aaaa', but its ACK was lost, and so was 'bbbb'; the kernel has backed off. */
    async function halfLost(): Promise<Seq> {
      await start();
      const { sndUna } = connection.position();
      const input = 'type filter hook input priority 0;';
      network.run('vm', 'nft', `add table inet t; add chain inet t c { ${input} }`);
      network.run('vm', 'nft', 'add rule inet t c tcp sport 7000 drop');
      connection.write('aaaa');
      await sleep(50);
      keepBack('stolen');
      connection.write('bbbb');
      await until('a backoff', () => connection.info().backoff >= BACKOFF);
      network.run('vm', 'nft', 'delete table inet t');
      return seqAdd(sndUna, 4);
    }

    it(`IPv${family}: the peer has more: kick while held, then ACK(TIAck)`, async () => {
      const tiack = await halfLost();
      connection.kick(raw, 16);
      letOut();
      raw.toKernel(connection.fromPeer(tiack));
      assert.notEqual(await connection.echoed('bbbb', 500), undefined);
    });

    it(`IPv${family}: the peer has more: ACK(TIAck) first spoils the kick`, async () => {
      const tiack = await halfLost();
      letOut();
      raw.toKernel(connection.fromPeer(tiack));
      connection.kick(raw, 16);
      assert.equal(await connection.echoed('bbbb', 500), undefined);
    });
  }
});
