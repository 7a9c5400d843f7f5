/* What no source of the daemon may contain, because it was the cause of a death once. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SOURCES = fileURLToPath(new URL('../../../src/', import.meta.url));

const COMMENT = /^\s*(\/?\*|\/\/)/;

/** Lines of code that match, as file:line: text. */
function find(
  pattern: RegExp,
  o: { folders?: readonly string[]; except?: readonly string[] } = {},
) {
  const files = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.gen.ts'))
    .filter((file) => o.folders?.some((folder) => file.startsWith(`${folder}/`)) ?? true)
    .filter((file) => !(o.except ?? []).includes(file));
  assert.ok(files.length > 10);
  return files.flatMap((file) =>
    readFileSync(join(SOURCES, file), 'utf8')
      .split('\n')
      .flatMap((line, i) =>
        pattern.test(line) && !COMMENT.test(line) ? `${file}:${i + 1}: ${line.trim()}` : [],
      ),
  );
}

/* What runs in the daemon. */
const DAEMON = ['boundary', 'daemon', 'guest', 'libc', 'link', 'netlink', 'sync', 'wire'];

describe('what the world calls', () => {
  test('timers are set by libc/guard.ts alone', () => {
    const bare = /\b(setTimeout|setInterval|setImmediate|queueMicrotask|nextTick)\(/;
    const except = ['libc/guard.ts'];
    assert.deepEqual(find(bare, { folders: DAEMON, except }), []);
  });

  /* A handler that only settles a promise, or only keeps what it is given, has nothing to guard. */
  test('handlers of events are guarded', () => {
    const bare = /\.(on|once|addListener|addEventListener)\((?!.*\b(guarded\(|resolve\b|reject\b))/;
    assert.deepEqual(find(bare, { folders: DAEMON, except: ['libc/guard.ts'] }), []);
  });
});

describe('what grows with the number of flows', () => {
  /* Arguments are on the stack: a RangeError from some 120,000 on. */
  test('is never spread into arguments', () => {
    const call =
      /\b(Math\.(min|max)|push|unshift|splice|fromCharCode|fromCodePoint)\((.*, )?\.\.\./;
    assert.deepEqual(
      find(call, { folders: DAEMON }).filter(
        (line) => !BOUNDED.some((known) => line.includes(known)),
      ),
      [],
    );
  });

  /* shift() moves all that is behind it, from some 50,000 on (V8). */
  test('is no queue by shift()', () => {
    assert.deepEqual(find(/\.shift\(/, { folders: DAEMON }), []);
  });
});

/* Of bounded length, and why. */
const BOUNDED = [
  'encoded.push(o.code, part.length, ...part)', // 255 bytes of one DHCP option
  'bytes.push(...value)', // four of an IPv4 address
  'Math.min(...lifetimes)', // of one router advertisement
  'found.push(...pids.slice(at, at + SLICE)',
  "log.push(...text.split('\\n')", // LOG_BYTES_MAX
];
