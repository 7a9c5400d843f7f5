/* By which way the daemon's packets get into the own kernel, and which do not get anywhere. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FLOW_FLAG, type Flow } from '../../../src/boundary/abi.gen.js';
import { DaemonOutlet } from '../../../src/daemon/flows/outlet.js';
import { address } from '../../../src/wire/address.js';

const LOCAL = address('192.0.2.10');
const KERNEL = { local: LOCAL, localPort: 22, remote: address('203.0.113.7'), remotePort: 40_000 };
const OWN = { flags: 0 } as Flow;
const BEHIND = { flags: FLOW_FLAG.FORWARDED } as Flow;

for (const [what, flow, where, way] of [
  ['an address of this machine', OWN, { local: true }, 'kernel'],
  ['a retained one', OWN, { retained: true }, 'retained'],
  ['one that is nowhere: it would leave for its owner', OWN, {}, undefined],
  ['that of a host behind, which NAT leads to', BEHIND, {}, 'kernel'],
  ['a retained one that NAT has lent to a host behind', BEHIND, { retained: true }, 'kernel'],
  ['a connection without a flow', undefined, {}, 'kernel'],
] as const) {
  test(`${what}: ${way ?? 'not sent'}`, () => {
    const sent: string[] = [];
    const told = (by: string) => () => {
      sent.push(by);
    };
    const { local = false, retained = false }: { local?: boolean; retained?: boolean } = where;
    const outlet = new DaemonOutlet({
      boundary: { flow: () => flow, place: () => undefined },
      raw: { toWire: told('wire'), toKernel: told('kernel'), toRetained: told('retained') },
      taps: { toNetwork: told('frame'), toGuest: told('frame'), toNetworkVerbatim: told('frame') },
      wayOf: () => undefined,
      isRetained: () => retained,
      isLocal: () => local,
    });
    outlet.toKernel(new Uint8Array(20), KERNEL);
    assert.deepEqual(sent, way === undefined ? [] : [way]);
  });
}
