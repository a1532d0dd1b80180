// What the user named, looked at before anything is done with it.

import { open, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { formatSize } from '../../src/size.ts';
import type { StartOptions } from './options.ts';
import type { Root } from './protocol.ts';
import { listFiles, measure, ownFiles } from './tree.ts';

const MEBIBYTE = 1024 ** 2;

export interface Inputs {
  image?: string | undefined;
  roots: readonly Root[];
  /** Of the files. */
  bytes: number;
  /** Of the image, in bytes. */
  size: number;
}

/** Finds and measures the files and the image. */
export async function findInputs(options: StartOptions, checkout: string): Promise<Inputs> {
  const roots = options.from ? [await directory(options.from)] : await ownFiles(checkout);
  const { count, bytes } = measure(await listFiles(roots));
  if (count === 0) throw new Error(`${options.from} has no regular files to copy.`);
  if (options.image !== undefined) {
    const image = resolve(options.image);
    return { image, roots, bytes, size: await imageSize(image) };
  }
  return { roots, bytes, size: options.size ?? roomFor(bytes) };
}

/** The files come in twice, and a file system needs room for itself. */
export function roomFor(bytes: number): number {
  const needed = Math.max(256 * MEBIBYTE, 2.5 * bytes + 64 * MEBIBYTE);
  return Math.ceil(needed / (64 * MEBIBYTE)) * 64 * MEBIBYTE;
}

async function directory(path: string): Promise<Root> {
  const entry = await look(path);
  if (!entry.isDirectory()) throw new Error(`--from ${path} is no directory.`);
  return { from: resolve(path), to: '.' };
}

/** The size of an image that can be used. */
async function imageSize(path: string): Promise<number> {
  const entry = await look(path);
  if (!entry.isFile()) throw new Error(`--image ${path} is no regular file.`);
  if (!(await isExt4(path))) {
    throw new Error(
      `${path} holds no ext4 file system. It must be an image of the file system itself, ` +
        'not of a disk with partitions; mkfs.ext4 makes one.',
    );
  }
  if (entry.size % 512 !== 0 || entry.size < 16 * MEBIBYTE) {
    const size = formatSize(entry.size);
    throw new Error(`${path} has ${size}; it must be 16 MiB at least, in blocks of 512 bytes.`);
  }
  return entry.size;
}

async function look(path: string) {
  return stat(path).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === 'ENOENT' ? 'there is no such file' : error.message;
    throw new Error(`Cannot use ${path}: ${why}.`, { cause: error });
  });
}

/** Where every ext2, ext3 and ext4 file system has its magic number. */
const MAGIC = { offset: 0x438, value: 0xef53 };

async function isExt4(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const buffer = Buffer.alloc(2);
    await file.read(buffer, 0, 2, MAGIC.offset);
    return buffer.readUInt16LE() === MAGIC.value;
  } finally {
    await file.close();
  }
}
