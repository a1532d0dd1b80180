import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { onTestFinished } from 'vitest';

/** A folder that goes away with the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A file of random bytes, and its path. */
export function randomImage(size: number): { path: string; bytes: Buffer } {
  const path = join(temporaryFolder(), 'disk.img');
  const bytes = randomBytes(size);
  writeFileSync(path, bytes);
  return { path, bytes };
}
