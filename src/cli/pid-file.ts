import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';

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
  const remove = (): void => removeIfHolds(path, line);
  // The end of the process may come before that of the device.
  process.once('exit', remove);
  return {
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', remove);
      remove();
    },
  };
}

function removeIfHolds(path: string, line: string): void {
  try {
    if (readFileSync(path, 'utf8') === line) rmSync(path, { force: true });
  } catch {
    // Somebody else has removed the file, or the folder is writable no more: nothing depends on it.
  }
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
