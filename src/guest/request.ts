/* How a VM shall get its addresses at a place: by DHCP and router advertisements, or as given. */
import { type Address, address, addressBytes, family } from '../wire/address.js';
import { type GuestState, identifiers6, PREFIX_LENGTH_6, within64 } from './identity.js';

/** Why there are no addresses for a guest at a place; the codes are the API's. */
export class PlaceError extends Error {
  override readonly name = 'PlaceError';
  constructor(
    readonly code: 'address-refused' | 'no-lease' | 'bad-request',
    message: string,
  ) {
    super(message);
  }
}

/** `gateway`: undefined: to be found out. */
export interface Given4 {
  address: Address;
  prefixLength: number;
  gateway: Address | undefined;
}

export interface PlaceRequest {
  /** By DHCP; given; not at all. */
  ipv4: 'dhcp' | Given4 | undefined;
  /** The prefix that a router advertises; given; not at all. */
  ipv6: 'advertised' | { prefix: Address } | undefined;
}

/**
 * `request`: "dhcp", and addresses such as "198.51.100.7/24", "198.51.100.7/24 via 198.51.100.1" and
 * "2001:db8:2::/64".  A family that the guest does not have at home is not asked for.  Throws
 * PlaceError.
 */
export function parseRequest(request: readonly string[], guest: GuestState): PlaceRequest {
  const given = request.filter((each) => each !== 'dhcp').map(parseGiven);
  for (const each of given) assertUsable(each, guest);
  const [first4, more4] = given.filter((g) => family(g.address) === 4);
  const [first6, more6] = given.filter((g) => family(g.address) === 6);
  if (more4 !== undefined || more6 !== undefined) throw refused('more than one of a family');
  const dhcp = request.includes('dhcp');
  // Of a guest that nothing is known of, IPv4 is the better guess.
  const has4 = guest.inside4 !== null || guest.inside6 === null;
  const parsed: PlaceRequest = {
    ipv4: first4 ?? (dhcp && has4 ? 'dhcp' : undefined),
    ipv6: first6
      ? { prefix: within64(first6.address, new Uint8Array(8)) }
      : dhcp && guest.inside6 !== null
        ? 'advertised'
        : undefined,
  };
  if (parsed.ipv4 === undefined && parsed.ipv6 === undefined) throw refused('nothing is asked for');
  return parsed;
}

const refused = (why: string): PlaceError =>
  new PlaceError('bad-request', `addresses of a VM: ${why}`);

function parseGiven(text: string): Given4 {
  const [, host = '', length = '', via] = /^([^/ ]+)\/(\d{1,3})(?: via ([^ ]+))?$/.exec(text) ?? [];
  try {
    const gateway = via === undefined ? undefined : address(via);
    const parsed = { address: address(host), prefixLength: Number(length), gateway };
    const most = family(parsed.address) === 4 ? 32 : 128;
    const alike = gateway === undefined || family(gateway) === family(parsed.address);
    if (parsed.prefixLength <= most && alike) return parsed;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  throw refused(`'${text}' is neither "dhcp" nor an address such as "198.51.100.7/24"`);
}

/* IPv6 is translated by prefix: the interface identifier is the guest's own and stays. */
function assertUsable(
  { address: a, prefixLength }: { address: Address; prefixLength: number },
  guest: GuestState,
): void {
  if (family(a) === 4) return;
  if (prefixLength !== PREFIX_LENGTH_6) throw refused(`${a}/${prefixLength} is no /64`);
  const identifier = addressBytes(a).subarray(8);
  const own = [new Uint8Array(8), ...identifiers6(guest)];
  if (own.some((id) => Buffer.compare(id, identifier) === 0)) return;
  throw refused(`${a} has another interface identifier than the guest, which keeps its own`);
}
