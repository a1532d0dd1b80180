// The guest's first file system: busybox, the overlay module, and what to do.

import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { exists } from '../scripts/cache.ts';
import { findProgram } from '../scripts/debian.ts';
import { type Job, commandScript, jobScript } from './job.ts';
import type { Kernel } from './kernel.ts';

const GUEST = join(import.meta.dirname, 'guest');

/** Writes the initramfs for one run into `dir`; returns its path. */
export async function buildInitramfs(dir: string, kernel: Kernel, job: Job): Promise<string> {
  const root = join(dir, 'initramfs');
  for (const name of ['bin', 'dev', 'proc', 'sys', 'vm']) {
    await mkdir(join(root, name), { recursive: true });
  }
  await copyFile(findProgram('busybox') ?? '/bin/busybox', join(root, 'bin/busybox'));
  await copyFile(join(GUEST, 'init.sh'), join(root, 'init'));
  await chmod(join(root, 'init'), 0o755);
  for (const name of ['session.sh', 'vm-session.service']) {
    await copyFile(join(GUEST, name), join(root, 'vm', name));
  }
  await writeFile(join(root, 'vm/job.sh'), jobScript(job));
  await writeFile(join(root, 'vm/command.sh'), commandScript(job));
  await unpackModule(join(kernel.modules, 'kernel/fs/overlayfs/overlay.ko'), join(root, 'vm'));
  return pack(root, `${root}.cpio`);
}

/** Modules come compressed, and the guest has no program yet to unpack them with. */
async function unpackModule(path: string, dir: string): Promise<void> {
  const target = join(dir, 'overlay.ko');
  if (await exists(path)) return copyFile(path, target);
  const [program, file] = (await exists(`${path}.xz`))
    ? ['xz', `${path}.xz`]
    : ['zstd', `${path}.zst`];
  await execa(program, ['-dcq', file], { stdout: { file: target } });
}

async function pack(root: string, file: string): Promise<string> {
  const { stdout: names } = await execa('find', ['.'], { cwd: root });
  const options = ['--quiet', '-o', '-H', 'newc', '-R', '0:0'];
  await execa('cpio', options, { cwd: root, input: names, stdout: { file } });
  return file;
}
