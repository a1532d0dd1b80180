// The folder that the job works in, on a file system that can do direct I/O if there is one.

import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobSpec } from '../protocol.ts';
import { mount } from './mount.ts';
import { run } from './run.ts';

export interface Workspace extends AsyncDisposable {
  dir: string;
  /** An empty folder in it to mount on. */
  mountPoint: string;
  /** Where a file of the machine that `npm start` runs on is found. */
  outside(path: string): string;
}

/** An empty folder, removed with all that is in it when disposed of. */
export async function openWorkspace(
  scratch: JobSpec['scratch'],
  signal: AbortSignal,
): Promise<Workspace> {
  return 'disk' in scratch ? onDisk(scratch.disk, signal) : inFolder(scratch.folder);
}

const PREFIX = 'ublk-start-';
const MOUNT_POINT = 'mnt';

async function inFolder(parent: string): Promise<Workspace> {
  await sweep(parent);
  const dir = await mkdtemp(join(parent, `${PREFIX}${process.pid}-`));
  const mountPoint = join(dir, MOUNT_POINT);
  await mkdir(mountPoint);
  const dispose = () => rm(dir, { recursive: true, force: true });
  return { dir, mountPoint, outside: (path) => path, [Symbol.asyncDispose]: dispose };
}

/** Removes what jobs left behind that were ended with SIGKILL; the name tells whose it was. */
async function sweep(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    const mountPoint = join(parent, name, MOUNT_POINT);
    const mounted = await run('mountpoint', ['-q', mountPoint]).then(
      () => true,
      () => false,
    );
    if (mounted) await run('umount', [mountPoint]);
    await rm(join(parent, name), { recursive: true, force: true });
  }
}

/** On an empty disk of a virtual machine whose files are those of the machine outside. */
async function onDisk(disk: string, signal: AbortSignal): Promise<Workspace> {
  await run('udevadm', ['settle'], signal);
  await run('mkfs.ext4', ['-q', '-F', disk], signal);
  const [dir, host] = ['/run/ublk-start', '/run/ublk-host'];
  await mkdir(dir);
  const mounted = await mount(disk, dir, signal);
  // The guest has a /tmp and a /run of its own; what they hide is seen from here.
  await mkdir(host);
  await run('mount', ['--bind', '/', host], signal);
  const mountPoint = join(dir, MOUNT_POINT);
  await mkdir(mountPoint);
  return {
    dir,
    mountPoint,
    outside: (path) => join(host, path),
    [Symbol.asyncDispose]: () => mounted[Symbol.asyncDispose](),
  };
}
