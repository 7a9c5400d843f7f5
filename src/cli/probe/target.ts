/* HOST[:PORT] as people write it, and the address that it means. */

import { lookup } from 'node:dns/promises';
import { isIPv6 } from 'node:net';
import { type Address, address, type Family } from '../../wire/address.js';
import { UsageError, VerbError } from '../exit.js';

/** What is most likely to listen: the way by which a machine is administered. */
const PORT_DEFAULT = 22;

export interface Target {
  host: string;
  port: number;
}

/** `name`, `name:443`, `192.0.2.10:443`, `2001:db8::1`, `[2001:db8::1]:443`.  Throws UsageError. */
export function parseTarget(text: string): Target {
  const bracketed = /^\[([0-9a-f:.]+)\](?::(\d+))?$/i.exec(text);
  const named = /^([^:]+)(?::(\d+))?$/.exec(text);
  const [, host, port] = isIPv6(text) ? [text, text] : (bracketed ?? named ?? []);
  const number = port === undefined ? PORT_DEFAULT : Number(port);
  if (host === undefined || number < 1 || number > 65535) {
    throw new UsageError(`"${text}" is not HOST, HOST:PORT or [IPV6]:PORT`);
  }
  return { host, port: number };
}

/** Throws VerbError naming what the resolver said. */
export async function resolveTarget(host: string, version: Family | undefined): Promise<Address> {
  try {
    const found = await lookup(host, { family: version ?? 0, verbatim: true });
    return address(found.address);
  } catch (error) {
    const code = error instanceof TypeError ? error.message : (error as { code?: string }).code;
    const over = version === undefined ? '' : ` over IPv${version}`;
    throw new VerbError(`probe ${host}: no address${over}: ${code}`);
  }
}
