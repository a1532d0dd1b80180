// Programs that know the extended headers of NBD: qemu from 8.2 on and libnbd from 1.18 on, which no Debian before 13
// has. Downloaded and unpacked, never installed, with the libraries that the programs need.

import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheDir, fillOnce } from './cache.ts';
import { openSuite } from './debian.ts';

const SUITE = 'trixie';
const PROGRAMS = ['qemu-nbd', 'qemu-img', 'qemu-io', 'nbdinfo', 'nbdcopy'];
const LIBRARIES = `
  libaio1t64 libatomic1 libc6 libffi8 libfuse3-4 libgcc-s1 libglib2.0-0t64 libgmp10 libgnutls30t64
  libhogweed6t64 libidn2-0 liblzma5 libnbd0 libnettle8t64 libnuma1 libp11-kit0 libpcre2-8-0 libselinux1
  libtasn1-6 libunistring5 liburing2 libxml2 libzstd1 zlib1g
`;
/** The loader of Debian 13 finds the libraries of Debian 13, whatever this machine has. */
const WRAPPER = `#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")
for loader in "$root"/usr/lib/*/ld-linux-*.so.*; do
  exec "$loader" --library-path "$(dirname "$loader")" "$root/usr/bin/$(basename "$0")" "$@"
done
`;

/** The folder of the programs, as the tests take it (`UBLK_NBD_TOOLS`); the network is used once. */
export async function nbdTools(): Promise<string> {
  const dir = await fillOnce(join(cacheDir(), `nbd-tools-${SUITE}`), async (draft) => {
    await using archive = await openSuite(SUITE);
    await archive.unpack(['qemu-utils', 'libnbd-bin', ...LIBRARIES.trim().split(/\s+/)], draft);
    await mkdir(join(draft, 'run'));
    for (const program of PROGRAMS) {
      await writeFile(join(draft, 'run', program), WRAPPER);
      await chmod(join(draft, 'run', program), 0o755);
    }
  });
  return join(dir, 'run');
}
