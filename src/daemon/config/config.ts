/* The configuration: one optional TOML file, every key optional, every mistake an error that
 * names the file, the line and the key.  docs/OPERATIONS.md is the reference for operators;
 * a test checks that each key below stands in it.
 *
 * Not here: which file to read and what the command line overrides (src/cli/daemon.ts).
 */

import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { z } from 'zod';
import { parseDurationMs } from './duration.js';
import { interfacePattern } from './interface-pattern.js';
import { loadPsk, type Psk, pskShape } from './psk.js';
import { didYouMean } from './suggestion.js';
import { contains, lineOf } from './toml-position.js';

export const CONFIG_PATH = '/etc/tiflow.toml';
export const RUN_DIR = '/run/tiflow';
export const STATE_DIR = '/var/lib/tiflow';

/* 0x5449 is "TI", as in the option's ExID.  Any value that nothing else on the machine uses will
 * do for both; routing tables above 255 have no meaning to the kernel.
 */
const MARK_DEFAULT = 0x5449;
const TABLE_DEFAULT = 0x5449;

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface PortRange {
  first: number;
  last: number;
}

export interface Config {
  /** Names, patterns or "default": attached when they are there; `tiflow up` adds more. */
  interfaces: string[];
  /** The same, for the hosts behind this machine, too. */
  gateways: string[];
  /** The same of taps of VMs: those that are ports of a bridge. */
  taps: string[];
  runDir: string;
  /** What must outlive a reboot: journals of migrations. */
  stateDir: string;
  /** A flow that could not be moved for so long is reset towards its program. */
  giveUpMs: number;
  /** A flow whose peer has been silent for so long, while something is unanswered, is reset. */
  holdMs: number;
  /** How long another link must have been the better one before flows follow; Infinity: never. */
  followMs: number;
  /** How long a bare RST on a silent path is kept back. */
  quarantineMs: number;
  /** A flow without a packet for so long is forgotten. */
  idleMs: number;
  /** How long TI_OPEN is left out towards a destination where it was lost on the way. */
  plainPeerTtlMs: number;
  /** The next three mark frames of the daemon on their way to the boundary. */
  mark: number;
  /** Routing table of the retained addresses. */
  table: number;
  sourcePorts: PortRange;
  flowsMax: number;
  /** Shell command that renews the addresses of the interface $1; undefined: find the client. */
  renew: string | undefined;
  /** Which interfaces flows shall live on. */
  prefer: Array<{
    interface: string;
    cost: number;
    never: boolean;
    port?: number | undefined;
  }>;
  psk: Psk | undefined;
  /** What is done for the VMs on our taps. */
  vm: {
    /** Shell command that is told of a VM's new addresses on the network (moved-hook.ts). */
    moved: string | undefined;
  };
  log: LogLevel;
}

/** One line per mistake: "tiflow.toml:12: give_up: ...". */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

const absolutePath = z.string('must be a string').regex(/^\/[^\0]*$/, 'must be an absolute path');

const shellCommand = z.string('must be a string').min(1, 'must not be empty').optional();

const patterns = z.array(interfacePattern, 'must be an array of strings').default([]);

const PREFER_SHAPE = z.strictObject(
  {
    interface: interfacePattern,
    cost: integer(0, 65_535).default(0),
    never: z.boolean('must be true or false').default(false),
    port: integer(1, 65_535).optional(),
  },
  'must be a table',
);

const VM_SHAPE = z.strictObject({ moved: shellCommand }, 'must be a table');

const FILE_SHAPE = z.strictObject({
  interfaces: patterns,
  gateways: patterns,
  taps: patterns,
  run_dir: absolutePath.default(RUN_DIR),
  state_dir: absolutePath.default(STATE_DIR),
  give_up: duration('1s', '24h').default(60_000),
  // Above a week a timer of Node's would run out of bits.
  hold: duration('10s', '7d').default(900_000),
  // Routes change twice and three times while a network comes up.
  follow: duration('0s', '1h', { never: true }).default(2_000),
  quarantine: duration('0s', '60s').default(3_000),
  idle: duration('1m', '365d').default(86_400_000),
  // Middleboxes are replaced now and then.
  plain_peer_ttl: duration('1s', '365d').default(3_600_000),
  mark: integer(1, 0xffff_ffff).default(MARK_DEFAULT),
  // The next one is ours, too; 252 to 255 are the system's (main, local, ...).
  table: integer(1, 0xffff_fffe)
    .refine((table) => table < 251 || table > 255, 'must not be 251 to 255')
    .default(TABLE_DEFAULT),
  source_ports: z
    .string('must be a string like "10000-32767"')
    .transform(portRange)
    .default({ first: 10_000, last: 32_767 }),
  flows_max: integer(16, 4_194_304).default(65_536),
  renew: shellCommand,
  prefer: z.array(PREFER_SHAPE, 'must be tables like [[prefer]]').default([]),
  psk: pskShape.optional(),
  vm: VM_SHAPE.default({}),
  log: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`).default('info'),
});

const TABLES: Readonly<Record<string, z.ZodObject>> = {
  prefer: PREFER_SHAPE,
  psk: pskShape,
  vm: VM_SHAPE,
};

const keysOf = (table: string | undefined): string[] =>
  Object.keys((TABLES[table ?? ''] ?? FILE_SHAPE).shape);

/** Every key of the file, tables as "psk.key_id". */
export const CONFIG_KEYS: readonly string[] = keysOf(undefined).flatMap((key) =>
  key in TABLES ? keysOf(key).map((inner) => `${key}.${inner}`) : [key],
);

/** The defaults: what an empty file means. */
export function defaultConfig(): Config {
  return parseConfig('', CONFIG_PATH);
}

/** Reads `path`.  A missing file is the defaults unless `mustExist`.  Throws ConfigError. */
export function readConfig(path: string, o: { mustExist: boolean }): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown error';
    if (code === 'ENOENT' && !o.mustExist) return defaultConfig();
    throw new ConfigError(`${path}: cannot read the configuration: ${code}`, { cause });
  }
  return parseConfig(text, path);
}

/** `path` is for messages, and key files may be relative to its directory.  Throws ConfigError. */
export function parseConfig(text: string, path: string): Config {
  const table = parseToml(text, path);
  const file = FILE_SHAPE.safeParse(table);
  if (!file.success) {
    const mistakes = file.error.issues.flatMap((issue) => mistakesOf(issue, table));
    throw new ConfigError(located(mistakes, text, path));
  }
  const { data } = file;
  return {
    interfaces: [...new Set(data.interfaces)],
    gateways: [...new Set(data.gateways)],
    taps: [...new Set(data.taps)],
    runDir: data.run_dir,
    stateDir: data.state_dir,
    giveUpMs: data.give_up,
    holdMs: data.hold,
    followMs: data.follow,
    quarantineMs: data.quarantine,
    idleMs: data.idle,
    plainPeerTtlMs: data.plain_peer_ttl,
    mark: data.mark,
    table: data.table,
    sourcePorts: data.source_ports,
    flowsMax: data.flows_max,
    renew: data.renew,
    prefer: data.prefer,
    psk: data.psk && readPsk(data.psk, text, path),
    vm: { moved: data.vm.moved },
    log: data.log,
  };
}

function readPsk(table: z.output<typeof pskShape>, text: string, path: string): Psk {
  const psk = loadPsk(table, path);
  if ('what' in psk) throw new ConfigError(located([psk], text, path));
  return psk;
}

function parseToml(text: string, path: string): unknown {
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const [headline = 'invalid'] = cause.message.split('\n');
    const what = headline.replace(/^Invalid TOML document: /, '');
    throw new ConfigError(`${path}:${cause.line}: column ${cause.column}: ${what}`, { cause });
  }
}

interface Mistake {
  at: string[];
  what: string;
}

function mistakesOf(issue: z.core.$ZodIssue, table: unknown): Mistake[] {
  const at = issue.path.map(String);
  if (issue.code !== 'unrecognized_keys') {
    return [{ at, what: contains(table, at) ? issue.message : `missing: ${issue.message}` }];
  }
  const known = keysOf(at[0]);
  return issue.keys.map((key) => ({
    at: [...at, key],
    what: `unknown key${didYouMean(key, known)}`,
  }));
}

/* In the order of the file, as a compiler does it. */
function located(mistakes: readonly Mistake[], text: string, path: string): string {
  return mistakes
    .map(({ at, what }) => ({ line: lineOf(text, at), what: `${at.join('.')}: ${what}` }))
    .sort((a, b) => a.line - b.line)
    .map(({ line, what }) => `${path}:${line}: ${what}`)
    .join('\n');
}

function integer(low: number, high: number) {
  const what = `must be an integer from ${low} to ${high}`;
  return z.int(what).min(low, what).max(high, what);
}

function duration(low: string, high: string, { never = false } = {}) {
  const or = never ? ', or "never"' : '';
  const what = `must be a duration with a unit, "${low}" to "${high}"${or} (units: ms, s, m, h, d)`;
  const [lowMs = 0, highMs = 0] = [parseDurationMs(low), parseDurationMs(high)];
  return z.string(what).transform((text, context) => {
    if (never && text === 'never') return Number.POSITIVE_INFINITY;
    const durationMs = parseDurationMs(text);
    if (durationMs !== undefined && durationMs >= lowMs && durationMs <= highMs) return durationMs;
    context.addIssue({ code: 'custom', message: `${JSON.stringify(text)} ${what}` });
    return z.NEVER;
  });
}

function portRange(text: string, context: z.RefinementCtx): PortRange {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(text);
  const [first, last] = [Number(match?.[1]), Number(match?.[2])];
  if (first >= 1024 && last <= 65_535 && first <= last) return { first, last };
  const what = 'must be two ports from 1024 to 65535, like "10000-32767"';
  context.addIssue({ code: 'custom', message: `${JSON.stringify(text)} ${what}` });
  return z.NEVER;
}
