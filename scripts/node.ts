// Other versions of Node.js than the one that runs us, from the npm registry.

import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDir, fillOnce } from './cache.ts';

/** Those that the package promises to run on, beside the oldest, which is what one develops with. */
const VERSIONS = [22, 24];

/** Their programs, as the tests take them (`UBLK_NODES`). */
export async function otherNodes(): Promise<string> {
  const running = Number(process.versions.node.split('.')[0]);
  const others = VERSIONS.filter((version) => version !== running);
  const programs = await Promise.all(others.map((version) => nodeProgram(version)));
  return programs.join(':');
}

/** The program of the newest Node.js with this major version when it was first asked for. */
export async function nodeProgram(version: number): Promise<string> {
  const name = `node-linux-${process.arch}`;
  const dir = await fillOnce(join(cacheDir(), 'node', String(version)), async (draft) => {
    const pack = ['pack', '--silent', '--pack-destination', draft, `${name}@${version}`];
    const { stdout: tarball } = await execa('npm', pack);
    await execa('tar', ['-xzf', tarball.trim(), '--strip-components=1'], { cwd: draft });
  });
  return join(dir, 'bin', 'node');
}
