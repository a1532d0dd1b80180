// The files that are copied: which, how many, how large.

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Root } from './protocol.ts';

/** A regular file, its place in the tree and its size. */
export interface TreeFile {
  from: string;
  to: string;
  bytes: number;
}

/** The regular files under `roots`; links, devices and the like are left out. */
export async function listFiles(roots: readonly Root[]): Promise<TreeFile[]> {
  const found = await Promise.all(roots.map(filesOf));
  return found.flat();
}

async function filesOf(root: Root): Promise<TreeFile[]> {
  const entry = await stat(root.from);
  if (!entry.isDirectory()) {
    return entry.isFile() ? [{ ...root, bytes: entry.size }] : [];
  }
  const inside = (await readdir(root.from, { withFileTypes: true }))
    .filter((one) => one.isDirectory() || one.isFile())
    .map(({ name }) => ({ from: join(root.from, name), to: join(root.to, name) }));
  return listFiles(inside);
}

/** How many files, and their bytes in all. */
export function measure(files: readonly { bytes: number }[]): { count: number; bytes: number } {
  return { count: files.length, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0) };
}

// What a checkout holds that is not its own: everything that is made, fetched or hidden.
const NOT_SOURCES = /^(node_modules|target|\..*)$/;

/** This checkout's own files and, as larger ones, the TypeScript compiler that came with it. */
export async function ownFiles(checkout: string): Promise<Root[]> {
  const names = (await readdir(checkout)).filter((name) => !NOT_SOURCES.test(name));
  return [
    ...names.map((name) => ({ from: join(checkout, name), to: join('ublk', name) })),
    { from: join(checkout, 'node_modules/typescript'), to: 'typescript' },
  ];
}
