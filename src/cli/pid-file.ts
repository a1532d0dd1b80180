import { randomUUID } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';

import { invalid } from '../errors.ts';

/**
 * Writes the id of this process to `path`, if there is one, until it is disposed of. A program that
 * waits for the file to appear never sees it empty. No link is followed on the way: a folder may be one
 * that others write to. A file that names another process by then is left.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` when it cannot be written there.
 */
export async function writePidFile(path: string | undefined): Promise<AsyncDisposable> {
  if (path === undefined) return { [Symbol.asyncDispose]: async () => {} };
  const line = `${process.pid}\n`;
  try {
    await replace(path, line);
  } catch (error) {
    throw invalid(`cannot write the pid file '${path}': ${(error as Error).message}`);
  }
  return {
    [Symbol.asyncDispose]: async () => {
      const text = await readFile(path, 'utf8').catch(() => undefined);
      if (text === line) await rm(path, { force: true });
    },
  };
}

/** Puts a new file in the place of whatever is there. */
async function replace(path: string, text: string): Promise<void> {
  const draft = `${path}.${randomUUID()}`;
  await writeFile(draft, text, { flag: 'wx' });
  try {
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
