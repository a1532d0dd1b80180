// promtool, which checks metrics: downloaded and unpacked, never installed, since Debian's package starts
// a Prometheus.

import { join } from 'node:path';
import { cacheDir } from './cache.ts';
import { downloadPackages, findProgram, releaseCodename } from './debian.ts';

/** The program, as the tests take it (`UBLK_PROMTOOL`); the network is used once. */
export async function promtool(): Promise<string> {
  const installed = findProgram('promtool');
  if (installed !== undefined) return installed;
  const suite = await releaseCodename();
  const dir = await downloadPackages(suite, ['prometheus'], join(cacheDir(), `promtool-${suite}`));
  return join(dir, 'usr/bin/promtool');
}
