// The Rust toolchain of this machine with the sources of its standard library, for platforms whose standard
// library rustup has not installed.

import { existsSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';

import { cacheDir, fillOnce } from '../cache.ts';
import { openSuite } from '../debian.ts';

/** The suite of Debian that keeps the sources of the last releases of Rust. */
const SUITE = 'trixie-backports';

/**
 * A copy of the toolchain, by hard links, with the sources of the standard library in their place: those of
 * exactly the compiler's version, from Debian.
 */
export async function toolchainWithSources(): Promise<string> {
  const { stdout: sysroot } = await execa('rustc', ['--print', 'sysroot']);
  const { stdout: named } = await execa('rustc', ['--version']);
  const version = /^rustc (\d+\.\d+\.\d+) /.exec(named)?.[1];
  if (version === undefined) throw new Error(`only releases of Rust have sources: ${named}`);
  const dir = join(cacheDir(), `rust-${version}-with-sources`);
  return await fillOnce(dir, async (draft) => {
    await using suite = await openSuite(SUITE);
    const all = await suite.versions('rust-src');
    const found = all.find((one) => one.startsWith(`${version}+`));
    if (found === undefined) {
      const known = all.map((one) => one.split('+')[0]).join(', ');
      throw new Error(
        `Debian ${SUITE} has no sources of Rust ${version}, only of ${known}.\n` +
          'Make one of these the default: rustup default VERSION',
      );
    }
    await suite.unpack([`rust-src=${found}`], join(draft, 'debian'));
    await execa('cp', ['-al', ...(await entries(sysroot)), draft]);
    const library = join('..', '..', '..', '..', 'debian/usr/src', `rustc-${version}`, 'library');
    const place = join(draft, 'lib/rustlib/src/rust');
    await mkdir(place, { recursive: true });
    if (!existsSync(join(place, 'library'))) await symlink(library, join(place, 'library'));
  });
}

async function entries(sysroot: string): Promise<string[]> {
  return ['bin', 'lib', 'libexec'].map((name) => join(sysroot, name)).filter(existsSync);
}
