import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';

import { invalid } from '../errors.ts';

/**
 * Writes the id of this process to `path`, if given, and removes the file when disposed of. The file
 * appears complete, never empty. No link is followed, since other users may write to the folder. A
 * file with another process id stays.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` when the file cannot be written.
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
  // The process may end before the device.
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
    // The file is gone or the folder has become read-only: nothing depends on the file.
  }
}

/** Replaces a file, or a link, with a new file. */
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
