// zig as a linker for other platforms and for older C libraries, from PyPI.

import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';

import { cacheDir, fillOnce } from '../cache.ts';

/** Versions that have built all platforms. */
const PACKAGES = ['ziglang==0.15.2', 'cargo-zigbuild==0.22.3'];

/** A folder for PATH with `zig` and `cargo-zigbuild`; downloaded once. */
export async function zigTools(): Promise<string> {
  const dir = join(cacheDir(), `zig-${PACKAGES.join('-').replaceAll(/[^\w.-]+/g, '-')}`);
  await fillOnce(dir, async (draft) => {
    await execa('python3', ['-m', 'venv', draft]);
    // A virtual environment knows its place: everything is called by way of the final one.
    await execa(join(draft, 'bin/python3'), ['-m', 'pip', 'install', '-q', ...PACKAGES]);
    const shim = join(draft, 'bin/zig');
    await writeFile(shim, '#!/bin/sh\nexec "$(dirname "$0")/python3" -m ziglang "$@"\n');
    await chmod(shim, 0o755);
  });
  return join(dir, 'bin');
}
