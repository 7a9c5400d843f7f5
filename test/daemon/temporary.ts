/* Directories that go away with the test. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export function temporaryDirectory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), `tiflow-test-${process.pid}-`));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export function temporaryFile(t: TestContext, name: string, text: string): string {
  const path = join(temporaryDirectory(t), name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}
