/*
 * Writes src/boundary/abi.gen.ts: the TypeScript side of bpf/abi.h.
 *
 * The layouts come from BTF, not from the text of the header: the compiler has placed the
 * fields, and BTF keeps typedef names, so `__be16` becomes a big-endian accessor and `seq` a
 * branded Seq.  Only the names of the types are read from the text; clang leaves out of BTF
 * what a program does not use, so a probe that has one member of every type is compiled here
 * instead of taking the object of the data plane.
 *
 * Usage: generate-abi bpf/abi.h > src/boundary/abi.gen.ts   (needs clang and bpftool)
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

interface BtfType {
  id: number;
  kind: string;
  name: string;
  size?: number;
  type_id?: number;
  nr_elems?: number;
  encoding?: string;
  members?: { name: string; type_id: number; bits_offset: number }[];
  values?: { name: string; val: number }[];
}

/** How one C type is held, read and written in TypeScript. */
interface Codec {
  size: number;
  type: string;
  read: (at: string) => string;
  write: (at: string, value: string) => string;
}

/** Its type is not generated: src/wire has it, where the field is left out if it is 0. */
const TUPLE_IS_FROM_WIRE = 'tuple';
const TUPLE_OPTIONAL = 'tap';

function main(header: string): void {
  const text = readFileSync(header, 'utf8');
  const names = [...text.matchAll(/^(struct|enum) (\w+) \{/gm)].map((m) => `${m[1]} ${m[2]}`);
  const version = /^#define ABI_VERSION (\d+)$/m.exec(text)?.[1];
  if (version === undefined) throw new Error(`${header}: no ABI_VERSION`);
  const types = new Map(compiledTypes(header, names).map((t) => [t.id, t]));
  const byName = new Map([...types.values()].map((t) => [`${t.kind} ${t.name}`, t]));
  const find = (name: string): BtfType => {
    const kind = name.startsWith('struct ') ? 'STRUCT' : 'ENUM';
    const found = byName.get(`${kind} ${name.slice(name.indexOf(' ') + 1)}`);
    if (found === undefined) throw new Error(`${header}: ${name} is not in BTF`);
    return found;
  };
  const parts = names.map((name) =>
    name.startsWith('enum ') ? enumText(find(name)) : structText(find(name), types),
  );
  const body = parts.filter((part) => part !== '').join('\n');
  process.stdout.write(`${preamble(version, body.includes(': Address'))}\n${body}`);
}

function compiledTypes(header: string, names: string[]): BtfType[] {
  const directory = mkdtempSync(join(tmpdir(), 'tiflow-abi-'));
  const object = join(directory, 'abi.o');
  const members = names.map((name, index) => `${name} m${index};`).join(' ');
  const probe = `#include <linux/types.h>\n#include "abi.h"\nstruct abi { ${members} } abi;\n`;
  const includes = ['-I', dirname(header), '-I/usr/include/x86_64-linux-gnu'];
  const clang = ['-O2', '-g', '-target', 'bpf', ...includes, '-x', 'c', '-c', '-', '-o', object];
  try {
    execFileSync('clang', clang, { input: probe, stdio: ['pipe', 'inherit', 'inherit'] });
    const json = execFileSync('bpftool', ['btf', 'dump', 'file', object, '-j']);
    return (JSON.parse(json.toString()) as { types: BtfType[] }).types;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function preamble(version: string, usesAddress: boolean): string {
  return `/*
 * Generated from bpf/abi.h by generate-abi.ts: do not edit, run \`make abi\`.
 * Meanings, units and who writes what are told there.
 *
 * Every struct has a size, the offsets of its fields, a reader and a writer on a DataView, and
 * encode, its bytes as a map takes them.  Padding is not shown; a writer leaves it as it was.
 */
import { ${usesAddress ? 'type Address, ' : ''}addressFromBytes, addressMapped } from '../wire/address.js';
import type { Seq } from '../wire/seq.js';
import type { Tuple } from '../wire/tuple.js';

export const ABI_VERSION = ${version};

const bytesAt = (view: DataView, at: number, length: number): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset + at, length);

const nonZero = <K extends string>(key: K, value: number): { [k in K]?: number } =>
  value === 0 ? {} : ({ [key]: value } as { [k in K]: number });
`;
}

function enumText(e: BtfType): string {
  const values = e.values ?? [];
  const prefix = commonPrefix(values.map((v) => v.name));
  const entries = values.map((v) => `${v.name.slice(prefix.length)}: ${v.val}`).join(', ');
  const constant = `export const ${e.name.toUpperCase()} = { ${entries} } as const;\n`;
  return e.name === 'reason' ? constant + reasonText(values) : constant;
}

/** The part up to and including a `_` that all names begin with. */
function commonPrefix(names: string[]): string {
  const first = names[0] ?? '';
  const prefix = first.slice(0, first.indexOf('_') + 1);
  return names.every((name) => name.startsWith(prefix)) ? prefix : '';
}

function reasonText(values: { name: string; val: number }[]): string {
  const labels = values
    .filter((v) => v.name !== 'REASON_END')
    .map(({ name, val }) => {
      const [, group = '', rest = ''] = /^([A-Z]+)_(.*)$/.exec(name) ?? [];
      const label = rest.toLowerCase().replaceAll('_', '-');
      return `[${val}, { group: '${group.toLowerCase()}', name: '${label}' }]`;
    });
  return `
export type ReasonClass = 'reason' | 'legacy' | 'drop' | 'count';

const REASONS = new Map<number, { group: ReasonClass; name: string }>([${labels.join(', ')}]);

/** The label of a reason: 'peer-plain', 'held'; its number if this version does not know it. */
export const reasonName = (n: number): string => REASONS.get(n)?.name ?? String(n);

/** Why a connection is legacy, why a packet was dropped, or what was counted. */
export const reasonClass = (n: number): ReasonClass => REASONS.get(n)?.group ?? 'reason';
`;
}

function structText(s: BtfType, types: Map<number, BtfType>): string {
  // An address is a text in TypeScript: src/wire/address.ts converts it.
  if (s.name === 'address') return '';
  const name = pascal(s.name);
  const fields = (s.members ?? [])
    .filter((m) => !/^pad\d*$/.test(m.name))
    .map((m) => ({
      name: camel(m.name),
      at: m.bits_offset / 8,
      codec: codecOf(m.type_id, types),
    }));
  const shape = fields.map((f) => `  ${f.name}: ${f.codec.type};`).join('\n');
  const offsets = fields.map((f) => `${f.name}: ${f.at}`).join(', ');
  const isTuple = s.name === TUPLE_IS_FROM_WIRE;
  const optional = (f: { name: string }): boolean => isTuple && f.name === TUPLE_OPTIONAL;
  const read = (f: (typeof fields)[number]): string => {
    const value = f.codec.read(plus('at', f.at));
    return optional(f) ? `...nonZero('${f.name}', ${value})` : `${f.name}: ${value}`;
  };
  const reads = fields.map(read).join(',\n    ');
  const value = (f: { name: string }): string => `value.${f.name}${optional(f) ? ' ?? 0' : ''}`;
  const writes = fields.map((f) => f.codec.write(plus('at', f.at), value(f))).join('\n  ');
  const type = isTuple ? '' : `export interface ${name} {\n${shape}\n}\n`;
  const constant = s.name.toUpperCase();
  return `${type}export const ${constant}_SIZE = ${s.size};
export const ${constant}_AT = { ${offsets} } as const;
export function read${name}(view: DataView, at = 0): ${name} {
  return {
    ${reads},
  };
}
export function write${name}(view: DataView, value: ${name}, at = 0): void {
  ${writes}
}
export function encode${name}(value: ${name}): Uint8Array {
  const bytes = new Uint8Array(${s.size});
  write${name}(new DataView(bytes.buffer), value);
  return bytes;
}
`;
}

function codecOf(id: number, types: Map<number, BtfType>): Codec {
  const type = types.get(id);
  if (type === undefined) throw new Error(`BTF type ${id} is missing`);
  if (type.kind === 'ARRAY') return arrayCodec(type, types);
  if (type.kind === 'STRUCT') return type.name === 'address' ? ADDRESS : structCodec(type);
  const known = INTEGERS[type.name];
  if (known !== undefined) return known;
  if (type.kind === 'TYPEDEF' && type.type_id !== undefined) return codecOf(type.type_id, types);
  throw new Error(`no rule for ${type.kind} ${type.name}`);
}

const integer = (size: number, accessor: string, order: string, type = 'number'): Codec => ({
  size,
  type,
  read: (at) => `view.get${accessor}(${at}${order})${type === 'Seq' ? ' as Seq' : ''}`,
  write: (at, value) => `view.set${accessor}(${at}, ${value}${order});`,
});

const INTEGERS: Record<string, Codec> = {
  __u8: integer(1, 'Uint8', ''),
  __u16: integer(2, 'Uint16', ', true'),
  __u32: integer(4, 'Uint32', ', true'),
  __s32: integer(4, 'Int32', ', true'),
  __u64: integer(8, 'BigUint64', ', true', 'bigint'),
  __be16: integer(2, 'Uint16', ''),
  __be32: integer(4, 'Uint32', ''),
  seq: integer(4, 'Uint32', ', true', 'Seq'),
};

const ADDRESS: Codec = {
  size: 16,
  type: 'Address',
  read: (at) => `addressFromBytes(bytesAt(view, ${at}, 16))`,
  write: (at, value) => `bytesAt(view, ${at}, 16).set(addressMapped(${value}));`,
};

const structCodec = (s: BtfType): Codec => ({
  size: s.size ?? 0,
  type: pascal(s.name),
  read: (at) => `read${pascal(s.name)}(view, ${at})`,
  write: (at, value) => `write${pascal(s.name)}(view, ${value}, ${at});`,
});

function arrayCodec(array: BtfType, types: Map<number, BtfType>): Codec {
  const length = array.nr_elems ?? 0;
  const element = codecOf(array.type_id ?? 0, types);
  const indexes = [...Array(length).keys()];
  if (element.size === 1) {
    return {
      size: length,
      type: 'Uint8Array',
      read: (at) => `bytesAt(view, ${at}, ${length}).slice()`,
      write: (at, value) => `bytesAt(view, ${at}, ${length}).set(${value});`,
    };
  }
  const place = (at: string, index: number): string => plus(at, index * element.size);
  return {
    size: length * element.size,
    type: `[${indexes.map(() => element.type).join(', ')}]`,
    read: (at) => `[${indexes.map((i) => element.read(place(at, i))).join(', ')}]`,
    write: (at, value) =>
      indexes.map((i) => element.write(place(at, i), `${value}[${i}]`)).join('\n  '),
  };
}

const plus = (at: string, offset: number): string => (offset === 0 ? at : `${at} + ${offset}`);

const camel = (name: string): string => name.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
const pascal = (name: string): string => camel(`_${name}`);

main(process.argv[2] ?? 'bpf/abi.h');
