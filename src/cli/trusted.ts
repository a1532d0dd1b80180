import { lstatSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * The first path that somebody other than root can change, of those that decide what `path` is: the
 * path itself, the folders above, and, of a folder, all that is in it. Nothing, if there is none.
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
  // A link has no mode of its own; where it leads is for the caller to resolve.
  const isLink = (mode & 0o170000) === 0o120000;
  return uid !== 0 || (!isLink && (mode & 0o022) !== 0);
}
