// The folder that the job works in, on a file system that can do direct I/O if there is one.

import { lstat, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { leftovers, nameOfOurs } from '../../leftovers.ts';
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
  const dir = await mkdtemp(join(parent, await nameOfOurs(PREFIX)));
  const mountPoint = join(dir, MOUNT_POINT);
  await mkdir(mountPoint);
  const dispose = () => rm(dir, { recursive: true, force: true });
  return { dir, mountPoint, outside: (path) => path, [Symbol.asyncDispose]: dispose };
}

/** Removes what jobs of this user left behind that were ended with SIGKILL. */
async function sweep(parent: string): Promise<void> {
  for (const dir of await leftovers(parent, PREFIX)) {
    const mountPoint = join(dir, MOUNT_POINT);
    if (await isMounted(mountPoint)) await run('umount', [mountPoint]);
    await rm(dir, { recursive: true, force: true });
  }
}

async function isMounted(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  if (!found?.isDirectory()) return false;
  return run('mountpoint', ['-q', path]).then(
    () => true,
    () => false,
  );
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
