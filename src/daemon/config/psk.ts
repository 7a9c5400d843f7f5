/* Pre-shared keys of the configuration: the [psk] table, inline base64 or a file with it. */

import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';

/* HMAC-SHA256 is as strong as the shorter of key and hash; below 128 bits a key can be guessed
 * (RFC 2104 section 3 discourages keys shorter than the hash).
 */
const KEY_BYTES_MIN = 16;
const KEY_BYTES_MAX = 1024;

export interface Psk {
  /** Offered in our TI_OPEN. */
  keyId: number;
  /** By key id, 1 to 255. */
  keys: Map<number, Uint8Array>;
  /** The key files that were read; `tiflow doctor` checks who may read them. */
  files: string[];
  /** At least one key stands in the configuration file itself. */
  inline: boolean;
}

const keyId = z
  .int('must be an integer from 1 to 255')
  .min(1, 'must be 1 to 255')
  .max(255, 'must be 1 to 255');

export const pskShape = z.strictObject({
  key_id: keyId,
  // Whoever is on the path can take an offer out of a SYN, so an offer alone would protect nothing.
  require: z.literal(true, 'must be true: an offer alone protects nothing').default(true),
  keys: z.record(
    z.string(),
    z.string('must be a string: base64 or the path of a file'),
    'must be a table',
  ),
});

/** The keys, or what is wrong and at which path of the file.  Key files are relative to `path`. */
export function loadPsk(
  table: z.output<typeof pskShape>,
  path: string,
): Psk | { at: string[]; what: string } {
  const psk: Psk = {
    keyId: table.key_id,
    keys: new Map(),
    files: [],
    inline: false,
  };
  for (const [name, value] of Object.entries(table.keys)) {
    const at = ['psk', 'keys', name];
    if (!/^[1-9]\d{0,2}$/.test(name) || Number(name) > 255) {
      return { at, what: 'a key is named by its id, "1" to "255"' };
    }
    const key = readKey(value, path, psk);
    if (typeof key === 'string') return { at, what: key };
    psk.keys.set(Number(name), key);
  }
  if (!psk.keys.has(psk.keyId)) {
    return { at: ['psk', 'key_id'], what: `no key "${psk.keyId}" in psk.keys` };
  }
  return psk;
}

/* "/" is a base64 digit too, so a key that begins with it has to say that it is one: guessing
 * would make a mistyped path a key that everyone can read in the file.
 */
function readKey(value: string, path: string, psk: Psk): Uint8Array | string {
  if (!/^\.{0,2}\//.test(value)) {
    psk.inline = true;
    return decodeKey(value.replace(/^base64:/, ''));
  }
  const file = resolve(dirname(path), value);
  try {
    const key = decodeKey(readFileSync(file, 'utf8').trim());
    psk.files.push(file);
    return typeof key === 'string' ? `${file}: ${key}` : key;
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown error';
    const advice = 'if it is a key and no path, write "base64:" before it';
    return `cannot read the key file ${file}: ${code} (${advice})`;
  }
}

/* Messages never repeat the value: they end in logs. */
function decodeKey(text: string): Uint8Array | string {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return 'is not base64';
  const key = Buffer.from(text, 'base64');
  if (key.length >= KEY_BYTES_MIN && key.length <= KEY_BYTES_MAX) return new Uint8Array(key);
  return `has ${key.length} bytes, not ${KEY_BYTES_MIN} to ${KEY_BYTES_MAX} (try: openssl rand -base64 32)`;
}
