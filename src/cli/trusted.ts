import { lstatSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * The first path that a user other than root can change among `path`, the folders above, and the
 * contents of a folder; undefined if only root can change all of them.
 */
export function changeableByOthers(path: string): string | undefined {
  return above(path).find(isChangeable) ?? within(path);
}

function above(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [path] : [path, ...above(parent)];
}

function within(path: string): string | undefined {
  if (!lstatSync(path).isDirectory()) return undefined;
  for (const name of readdirSync(path)) {
    const entry = join(path, name);
    const found = isChangeable(entry) ? entry : within(entry);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isChangeable(path: string): boolean {
  const { uid, mode } = lstatSync(path);
  // The mode of a link means nothing; the caller resolves links.
  const isLink = (mode & 0o170000) === 0o120000;
  return uid !== 0 || (!isLink && (mode & 0o022) !== 0);
}
