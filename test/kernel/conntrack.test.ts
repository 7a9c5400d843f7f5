/*
 * What a stateful firewall on the path makes of a synchronized connection (topology:
 * ../link/network.ts; the router tracks connections and drops what is INVALID).  Both ends are
 * raw packets here.  RFC 7323, section 2; nf_conntrack_proto_tcp.c, tcp_in_window.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { HostName } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import type { TcpOption } from '../../src/wire/option.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { type Seq, seq, seqAdd } from '../../src/wire/seq.js';
import { FAR, Network, vmAddress } from '../link/network.js';

const SEGMENT = 1000;
/* With the scale: 64 << 10, 64 KiB.  In a SYN it is never scaled. */
const WINDOW = 64;
const SYN_WINDOW = 2000;
const WSCALE: TcpOption = { kind: 'wscale', shift: 10 };
const MSS: TcpOption = { kind: 'mss', mss: 1400 };
const VM_ISN = seq(0xffff_f000);
const FAR_ISN = seq(5000);

const network = new Network();
after(() => network.close());

describe('connection tracking', () => {
  const nft = (host: HostName, ...commands: string[]) =>
    network.run(host, 'nft', commands.join('; '));
  const near = new RawSender();
  const far = network.inside('aramis', () => new RawSender());
  let nextPort = 62_000;

  before(() => {
    network.plug('athos');
    network.configure('athos');
    const forward = 'type filter hook forward priority 0;';
    nft('router', 'add table inet t', `add chain inet t c { ${forward} }`);
    nft('router', 'add counter inet t refused', 'add counter inet t judged');
    nft('router', 'add rule inet t c meta l4proto tcp counter name judged');
    nft('router', 'add rule inet t c ct state invalid counter name refused drop');
    // The kernels know nothing of these connections.
    for (const host of ['vm', 'aramis'] as const) {
      nft(host, 'add table inet t', 'add chain inet t c { type filter hook output priority 0; }');
      nft(host, 'add rule inet t c tcp flags & rst == rst drop');
    }
  });

  after(() => {
    near.close();
    far.close();
  });

  const count = (name: 'refused' | 'judged') =>
    Number(/packets (\d+)/.exec(nft('router', `list counter inet t ${name}`))?.[1]);

  for (const family of [4, 6] as const) {
    /** One connection as both ends see it on the wire. */
    function wire() {
      const vm = { address: vmAddress('athos', family), port: nextPort++ };
      const aramis = { address: FAR[family], port: 7000 };
      const packet = (out: boolean, p: Partial<Packet> & { flags: string; seq: Seq; ack: Seq }) => {
        const [source, target] = out ? [vm, aramis] : [aramis, vm];
        const bytes = encodePacket({
          ...{ source: source.address, sourcePort: source.port },
          ...{ destination: target.address, destinationPort: target.port },
          ...{ window: WINDOW, options: [], payload: new Uint8Array(), ...p },
        });
        (out ? near : far).toWire(bytes);
      };
      return packet;
    }

    async function synchronize(options: TcpOption[]) {
      const packet = wire();
      const before = count('judged');
      const passed = (packets: number) =>
        until(`${packets} packets`, () => count('judged') >= before + packets);
      packet(true, { flags: 'S', seq: VM_ISN, ack: seq(0), window: SYN_WINDOW, options });
      await passed(1);
      const first = seqAdd(VM_ISN, 1);
      packet(false, { flags: 'SA', seq: FAR_ISN, ack: first, window: SYN_WINDOW, options });
      await passed(2);
      packet(true, { flags: 'A', seq: seqAdd(VM_ISN, 1), ack: seqAdd(FAR_ISN, 1) });
      await passed(3);
      return { packet, passed };
    }

    async function burst(options: TcpOption[]): Promise<number> {
      const { packet, passed } = await synchronize(options);
      packet(false, { flags: 'A', seq: seqAdd(FAR_ISN, 1), ack: seqAdd(VM_ISN, 1) });
      await passed(4);
      const before = count('refused');
      const payload = new Uint8Array(SEGMENT);
      for (let i = 0; i < 20; i++) {
        const at = seqAdd(VM_ISN, 1 + i * SEGMENT);
        packet(true, { flags: 'A', seq: at, ack: seqAdd(FAR_ISN, 1), payload });
      }
      await passed(24);
      return count('refused') - before;
    }

    it(`IPv${family}: data passes if the SYN repeats the window scale`, async () => {
      assert.equal(await burst([MSS, WSCALE]), 0);
    });

    it(`IPv${family}: most data is INVALID if it does not`, async () => {
      assert.ok((await burst([MSS])) > 10);
    });

    it(`IPv${family}: an ACK of what was never sent is INVALID, of what was is not`, async () => {
      const { packet, passed } = await synchronize([MSS, WSCALE]);
      const before = count('refused');
      packet(false, { flags: 'A', seq: seqAdd(FAR_ISN, 1), ack: seqAdd(VM_ISN, 1 + 5000) });
      await passed(4);
      assert.equal(count('refused') - before, 1);
      packet(false, { flags: 'A', seq: seqAdd(FAR_ISN, 1), ack: seqAdd(VM_ISN, 1) });
      await passed(5);
      assert.equal(count('refused') - before, 1);
    });

    it(`IPv${family}: timestamps in data that the SYN had not do no harm`, async () => {
      const { packet, passed } = await synchronize([MSS, WSCALE]);
      const before = count('refused');
      const options: TcpOption[] = [{ kind: 'timestamps', value: 1, echo: 2 }];
      const at = { seq: seqAdd(VM_ISN, 1), ack: seqAdd(FAR_ISN, 1) };
      packet(true, { flags: 'A', ...at, options, payload: new Uint8Array(SEGMENT) });
      await passed(4);
      assert.equal(count('refused') - before, 0);
    });
  }
});
