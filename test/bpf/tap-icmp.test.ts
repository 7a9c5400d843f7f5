import { after, test } from 'node:test';
import { type Address, addressBytes } from '../../src/wire/address.js';
import {
  AWAY,
  both,
  type Ends,
  endsOf,
  frame,
  frameToGateway,
  GATEWAY,
  ICMP,
  INSIDE,
  icmpError,
  ipMessage,
  ipPacket,
  OUTSIDE,
  PEER,
  pattern,
  ROUTER,
  Tap,
  TCP,
  UDP,
} from './tap.js';

const tap = new Tap(AWAY);
after(() => tap.remove());

/** What was sent or came, as an ICMP error quotes it: its checksum is of no account. */
const quote = (ends: Ends, protocol: number, length = 8): Uint8Array =>
  ipPacket(ends, protocol, pattern(length));

for (const [protocol, name] of [
  [UDP, 'UDP'],
  [TCP, 'TCP'],
  [50, 'another protocol'],
] as const) {
  both(`an error from a router about the guest’s ${name}`, (f) => {
    const make = (guest: Address) =>
      icmpError(endsOf('in', guest, ROUTER[f]), quote(endsOf('out', guest, PEER[f]), protocol, 40));
    tap.passes('in', frame('in', make(OUTSIDE[f])), frame('in', make(INSIDE[f])));
  });
  both(`an error of the guest about ${name} that came`, (f) => {
    const make = (guest: Address) =>
      icmpError(endsOf('out', guest, PEER[f]), quote(endsOf('in', guest, PEER[f]), protocol));
    tap.passes('out', frame('out', make(INSIDE[f])), frameToGateway(make(OUTSIDE[f])));
  });
}

both('an error about what is not the guest’s: only its own addresses change', (f) => {
  const about = quote({ source: ROUTER[f], destination: PEER[f] }, UDP);
  const make = (guest: Address) => icmpError(endsOf('in', guest, ROUTER[f]), about);
  tap.passes('in', frame('in', make(OUTSIDE[f])), frame('in', make(INSIDE[f])));
  const own = (guest: Address) => icmpError(endsOf('out', guest, ROUTER[f]), about);
  tap.passes('out', frame('out', own(INSIDE[f])), frameToGateway(own(OUTSIDE[f])));
});

both('an error that quotes nothing, before padding that looks like something', (f) => {
  const short = (guest: Address) => icmpError(endsOf('in', guest, ROUTER[f]), new Uint8Array(0));
  const padding = quote(endsOf('out', OUTSIDE[f], PEER[f]), UDP);
  tap.passes(
    'in',
    Uint8Array.of(...frame('in', short(OUTSIDE[f])), ...padding),
    Uint8Array.of(...frame('in', short(INSIDE[f])), ...padding),
  );
});

test('a redirect is for nobody here', () => {
  const ends = endsOf('in', OUTSIDE[4], GATEWAY[4]);
  const about = quote(endsOf('out', OUTSIDE[4], PEER[4]), UDP);
  const redirect = Uint8Array.of(5, 1, 0, 0, ...addressBytes(ROUTER[4]), ...about);
  tap.drops('in', frame('in', ipMessage(ends, ICMP[4], redirect)), 'foreign');
});
