// Copying files and taking their checksums.

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TreeFile } from '../tree.ts';

export interface Watch {
  signal: AbortSignal;
  /** Called now and then with the share that is done, 0 to 1. */
  progress(share: number): void;
}

/** Copies each file to its place under `target`. */
export async function copyFiles(files: readonly TreeFile[], target: string, watch: Watch) {
  const made = new Set<string>();
  await forEach(files, watch, async ({ from, to }) => {
    const path = join(target, to);
    if (!made.has(dirname(path))) await mkdir(dirname(path), { recursive: true });
    made.add(dirname(path));
    await copyFile(from, path, constants.COPYFILE_FICLONE);
  });
}

/** The SHA-256 of each file. */
export async function checksums(files: readonly TreeFile[], watch: Watch): Promise<string[]> {
  const sums: string[] = [];
  const buffers = Array.from({ length: LANES }, () => Buffer.allocUnsafe(1 << 20));
  await forEach(files, watch, async ({ from }, i, lane) => {
    sums[i] = await checksum(from, buffers[lane]!, watch.signal);
  });
  return sums;
}

async function checksum(path: string, buffer: Buffer, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  await using file = await closing(open(path));
  for (;;) {
    signal.throwIfAborted();
    const { bytesRead } = await file.handle.read(buffer);
    if (bytesRead === 0) return hash.digest('hex');
    hash.update(buffer.subarray(0, bytesRead));
  }
}

async function closing(opening: ReturnType<typeof open>) {
  const handle = await opening;
  return { handle, [Symbol.asyncDispose]: () => handle.close() };
}

/** As many files at once as Node has threads for file I/O. */
const LANES = 4;

async function forEach(
  files: readonly TreeFile[],
  { signal, progress }: Watch,
  work: (file: TreeFile, index: number, lane: number) => Promise<void>,
): Promise<void> {
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  // A generator ends for all lanes once one of them leaves it with an error.
  const rest = (function* () {
    yield* files.entries();
  })();
  const lanes = Array.from({ length: LANES }, async (_, lane) => {
    for (const [index, file] of rest) {
      signal.throwIfAborted();
      await work(file, index, lane);
      done += file.bytes;
      progress(total === 0 ? 1 : done / total);
    }
  });
  // Whoever tidies up after a failure must find no lane still at work.
  const failure = (await Promise.allSettled(lanes)).find(({ status }) => status === 'rejected');
  if (failure) throw (failure as PromiseRejectedResult).reason;
}
