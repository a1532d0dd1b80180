// The newest kernel's own headers: downloaded and unpacked, never installed.

import { join } from 'node:path';
import { cacheDir } from './cache.ts';
import { downloadPackages, openSuite } from './debian.ts';

/** Where Debian's newest kernels come from, the best first. */
const SUITES = ['trixie-backports', 'sid'];
const PACKAGE = 'linux-libc-dev';

/** A directory for the C compiler's include path; the network is used once per version. */
export async function kernelHeaders(): Promise<string> {
  for (const name of SUITES) {
    await using suite = await openSuite(name);
    const record = await suite.show(PACKAGE);
    if (!record) continue;
    const dir = join(cacheDir(), `${PACKAGE}-${record.version}`);
    await downloadPackages(name, [PACKAGE], dir);
    return join(dir, 'usr/include');
  }
  throw new Error(`None of the Debian suites ${SUITES.join(', ')} has ${PACKAGE}.`);
}
