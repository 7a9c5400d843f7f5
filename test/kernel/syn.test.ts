/*
 * What Linux puts into a SYN, and what it makes of an option that it does not know (topology:
 * ../link/network.ts).  RFC 9293, section 3.1; RFC 6994.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { until } from '../../src/lab/wait.js';
import { RawSender } from '../../src/libc/raw.js';
import { encodeOption, OPTIONS_BYTES_MAX, type TcpOption } from '../../src/wire/option.js';
import { encodePacket, type Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { FAR, Network, vmAddress } from '../link/network.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';

const network = new Network();
after(() => network.close());

const optionBytes = (options: TcpOption[]) =>
  options.reduce((sum, option) => sum + encodeOption(option).length, 0);

/* MSS, SACK-permitted, timestamps, NOP, window scale: 20 bytes; TI_OPEN fits exactly. */
const TI_OPEN: TcpOption = {
  ...{ kind: 'ti-open', flags: 0, keyId: 0, reserved: 0 },
  ...{ tifidHalf: 0x0a0b0c0d, keyHalf: new Uint8Array(8) },
};

describe('a SYN of Linux', () => {
  before(async () => {
    await network.echo('aramis', 7000);
    network.plug('athos');
    network.configure('athos');
  });

  for (const family of [4, 6] as const) {
    const local = vmAddress('athos', family);

    it(`IPv${family}: has exactly the room that TI_OPEN needs, and so has the SYN/ACK`, async () => {
      await network.reaches(family, 7000);
      const capture = new Capture('eth0');
      const connection = await Connection.open(local, FAR[family], 7000);
      const handshake = capture.packets().filter((p) => p.flags.startsWith('S'));
      assert.deepEqual(
        handshake.map((p) => [p.flags, OPTIONS_BYTES_MAX - optionBytes(p.options)]),
        [
          ['S', encodeOption(TI_OPEN).length],
          ['SA', encodeOption(TI_OPEN).length],
        ],
      );
      connection.close();
      capture.close();
    });

    it(`IPv${family}: is answered as usual if it has an unknown option`, async () => {
      const answer = async (options: TcpOption[]): Promise<Packet> => {
        const capture = new Capture('eth0');
        const raw = new RawSender();
        const sourcePort = 61_000 + optionBytes(options);
        raw.toWire(
          encodePacket({
            ...{ source: local, sourcePort, destination: FAR[family], destinationPort: 7000 },
            ...{ flags: 'S', seq: seq(1000), ack: seq(0), window: 65_535, options },
            payload: new Uint8Array(),
          }),
        );
        const found = await until('an answer', () =>
          capture.packets().find((p) => p.destinationPort === sourcePort),
        );
        raw.close();
        capture.close();
        return found;
      };
      const plain: TcpOption[] = [{ kind: 'mss', mss: 1460 }, { kind: 'sack-permitted' }];
      const usual = await answer(plain);
      const unusual = await answer([...plain, TI_OPEN]);
      assert.equal(usual.flags, 'SA');
      assert.equal(unusual.flags, 'SA');
      assert.deepEqual(unusual.options, usual.options);
    });
  }
});
