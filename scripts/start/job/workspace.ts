// The folder that the job works in, on a file system that can do direct I/O if there is one.

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobSpec } from '../protocol.ts';
import { mount } from './mount.ts';
import { run } from './run.ts';

export interface Workspace extends AsyncDisposable {
  dir: string;
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

async function inFolder(parent: string): Promise<Workspace> {
  const dir = await mkdtemp(join(parent, 'ublk-start-'));
  const dispose = () => rm(dir, { recursive: true, force: true });
  return { dir, outside: (path) => path, [Symbol.asyncDispose]: dispose };
}

/** On an empty disk of a virtual machine whose files are those of the machine outside. */
async function onDisk(disk: string, signal: AbortSignal): Promise<Workspace> {
  await run('modprobe', ['virtio_blk'], signal);
  await run('udevadm', ['settle'], signal);
  await run('mkfs.ext4', ['-q', '-F', disk], signal);
  const [dir, host] = ['/run/ublk-start', '/run/ublk-host'];
  await mkdir(dir);
  const mounted = await mount(disk, dir, signal);
  // The guest has a /tmp and a /run of its own; what they hide is seen from here.
  await mkdir(host);
  await run('mount', ['--bind', '/', host], signal);
  return {
    dir,
    outside: (path) => join(host, path),
    [Symbol.asyncDispose]: () => mounted[Symbol.asyncDispose](),
  };
}
