import { rename, rm, writeFile } from 'node:fs/promises';

import { invalid } from '../errors.ts';

/**
 * Writes this process's id to `path`, if there is one, until it is disposed of. Whoever waits for
 * the file to appear never sees it empty.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` when it cannot be written there.
 */
export async function writePidFile(path: string | undefined): Promise<AsyncDisposable> {
  if (path === undefined) return { [Symbol.asyncDispose]: async () => {} };
  const draft = `${path}.${process.pid}`;
  try {
    await writeFile(draft, `${process.pid}\n`);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw invalid(`cannot write the pid file '${path}': ${(error as Error).message}`);
  }
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}
