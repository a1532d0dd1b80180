// Chooses a Debian kernel that has ublk and unpacks it into the cache.

import { readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDir, exists, fillOnce } from '../scripts/cache.ts';
import { type Suite, findProgram, openSuite } from '../scripts/debian.ts';

/** Where each kernel was seen last. Suites move on, so the others are looked through as well. */
const HOME_SUITE = { '7.3': 'trixie-backports', '7.2': 'sid', '6.12': 'trixie' } as const;

/** The kernels to ask for; the first is the default. */
export const KERNELS: readonly string[] = Object.keys(HOME_SUITE);

/** A kernel in the cache. */
export interface Kernel {
  /** What `uname -r` says in the guest, such as `7.3.4+deb13-cloud-amd64`. */
  release: string;
  image: string;
  /** Its folder of modules, with the indexes that modprobe needs. */
  modules: string;
}

/** The suites to look through for a kernel series, the likeliest first. */
export function suitesFor(series: string): string[] {
  const home = Object.entries(HOME_SUITE).find(([name]) => name === series)?.[1];
  return [...new Set([home, 'trixie-backports', 'sid', 'trixie'].filter((name) => name != null))];
}

/**
 * The newest release of a series (`7.3`) among package names such as
 * `linux-image-7.3.4+deb13-cloud-amd64`.
 */
export function chooseRelease(series: string, packageNames: readonly string[]): string | undefined {
  const releases = packageNames.flatMap(
    (name) => /^linux-image-(\d.*-cloud-[a-z0-9]+)$/.exec(name)?.[1] ?? [],
  );
  return newest(series, releases);
}

function newest(series: string, releases: readonly string[]): string | undefined {
  const inSeries = releases.filter((release) => /^[.+-]/.test(release.slice(series.length)));
  return inSeries
    .filter((release) => release.startsWith(series))
    .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))[0];
}

/**
 * The kernel of a series, from the cache when it is there, else from the machine's Debian archive:
 * about 40 MB, said on stderr.
 */
export async function getKernel(series: string): Promise<Kernel> {
  const home = join(cacheDir(), 'kernels');
  const release = newest(series, (await readdir(home).catch(() => [])).filter(isWhole));
  if (release) return kernelIn(home, release);
  for (const name of suitesFor(series)) {
    await using suite = await openSuite(name);
    const found = await findIn(suite, series);
    if (found) return await downloadKernel(suite, found, home);
  }
  throw new Error(
    `No Linux ${series} in Debian's ${suitesFor(series).join(', ')}. ` +
      `The test machine is made for ${KERNELS.join(', ')} (--kernel).`,
  );
}

const isWhole = (name: string) => !name.includes('.draft-');

/** What `linux-image-cloud-ARCH` stands for, or an older release that the suite still has. */
async function findIn(suite: Suite, series: string): Promise<string | undefined> {
  const { stdout: arch } = await execa('dpkg', ['--print-architecture']);
  const current = await suite.show(`linux-image-cloud-${arch}`);
  return (
    chooseRelease(series, current?.depends ?? []) ??
    chooseRelease(series, await suite.search(`^linux-image-${series}.*-cloud-${arch}$`))
  );
}

async function downloadKernel(suite: Suite, release: string, home: string): Promise<Kernel> {
  const names = await packagesOf(suite, release);
  const records = await Promise.all(names.map((name) => suite.show(name)));
  const megabytes = Math.ceil(records.reduce((sum, item) => sum + (item?.size ?? 0), 0) / 1e6);
  console.error(`Downloading Linux ${release} from Debian ${suite.name}, ${megabytes} MB, once…`);
  await fillOnce(join(home, release), async (dir) => {
    await suite.unpack(names, dir);
    if (!(await exists(join(dir, 'lib')))) await symlink('usr/lib', join(dir, 'lib'));
    await execa(findProgram('depmod') ?? 'depmod', ['-b', dir, release]);
  });
  return kernelIn(home, release);
}

/** Newer kernels are split into an image, its binary, its modules and a base; older are not. */
async function packagesOf(suite: Suite, release: string): Promise<string[]> {
  const image = `linux-image-${release}`;
  const depends = (await suite.show(image))?.depends ?? [];
  return [image, ...depends.filter((name) => name.endsWith(`-${release}`))];
}

async function kernelIn(home: string, release: string): Promise<Kernel> {
  const dir = join(home, release);
  const modules = join(dir, 'lib/modules', release);
  // Debian moved the image beside the modules with Linux 7.
  const beside = join(modules, 'vmlinuz');
  const image = (await exists(beside)) ? beside : join(dir, `boot/vmlinuz-${release}`);
  return { release, image, modules };
}
