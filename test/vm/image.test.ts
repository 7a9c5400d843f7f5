/**
 * The cache of the guest's image: builds at once do not disturb each other, what a killed one has
 * left is removed, and a second use fetches and builds nothing.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { guestImage } from '../../src/lab/vm/image.js';

const MODULE = new URL('../../src/lab/vm/image.js', import.meta.url).href;
const skip = process.getuid?.() === 0 ? false : 'needs root: files of the image belong to root';

async function buildElsewhere(cache: string): Promise<number | null> {
  const program = `import('${MODULE}').then((m) => m.guestImage('${cache}'))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

/** A pid that was somebody's a moment ago. */
async function deadPid(): Promise<number> {
  const child = spawn('true');
  await once(child, 'exit');
  return child.pid ?? 0;
}

test('two builds at once beside a dead one; then none', { skip, timeout: 120_000 }, async () => {
  const cache = mkdtempSync(`${tmpdir()}/tiflow-image-${process.pid}-`);
  try {
    const dead = `${cache}/.build-${await deadPid()}`;
    mkdirSync(`${dead}/image`, { recursive: true });
    assert.deepEqual(await Promise.all([buildElsewhere(cache), buildElsewhere(cache)]), [0, 0]);
    assert.equal(readdirSync(cache).length, 1, readdirSync(cache).join(' '));
    const image = guestImage(cache);
    for (const file of Object.values(image)) assert.ok(statSync(file).size > 1 << 20, file);
    const made = statSync(image.base).mtimeMs;
    assert.equal(statSync(guestImage(cache).base).mtimeMs, made);
    assert.ok(!existsSync(dead));
  } finally {
    rmSync(cache, { recursive: true });
  }
});
