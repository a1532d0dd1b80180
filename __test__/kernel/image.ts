import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, onTestFinished } from 'vitest';

function makeFolder(parent = tmpdir()): { folder: string; remove: () => void } {
  const folder = mkdtempSync(join(parent, 'ublk-test-'));
  return { folder, remove: () => rmSync(folder, { recursive: true }) };
}

/** A folder that goes away with the test. */
export function temporaryFolder(): string {
  const { folder, remove } = makeFolder();
  onTestFinished(remove);
  return folder;
}

/** A folder that goes away with the tests of a `describe`. */
export function folderOfTests(parent?: string): string {
  const { folder, remove } = makeFolder(parent);
  afterAll(remove);
  return folder;
}

/** A file of random bytes, and its path. */
export function randomImage(size: number): { path: string; bytes: Buffer } {
  const path = join(temporaryFolder(), 'disk.img');
  const bytes = randomBytes(size);
  writeFileSync(path, bytes);
  return { path, bytes };
}

/** The path of an empty file of `size` bytes that take up no space. */
export function sparseImage(size: number, folder = temporaryFolder(), name = 'disk.img'): string {
  const path = join(folder, name);
  writeFileSync(path, '');
  truncateSync(path, size);
  return path;
}

/** The paths of several such files. */
export function sparseImages(
  sizes: readonly number[],
  folder = temporaryFolder(),
  name = 'disk',
): string[] {
  return sizes.map((size, index) => sparseImage(size, folder, `${name}-${index}.img`));
}
