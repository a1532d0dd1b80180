// The main job: files go into an ext4 image through a ublk device and come back the same.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { basename, join } from 'node:path';
import { formatSize } from '../../../src/size.ts';
import type { JobResult, JobSpec, Step } from '../protocol.ts';
import { type TreeFile, listFiles, measure } from '../tree.ts';
import { type Watch, checksums, copyFiles } from './files.ts';
import { checkImage, copyImage, makeImage, needRoom } from './image.ts';
import { compareDevices, openLoop } from './measure.ts';
import { mount } from './mount.ts';
import { run } from './run.ts';
import { serve } from './server.ts';
import { type Workspace, openWorkspace } from './workspace.ts';

/** What the job tells of itself, step by step. */
export interface Report {
  progress(step: Step, text: string): void;
  done(step: Step, text: string): void;
}

interface Job {
  spec: JobSpec;
  report: Report;
  signal: AbortSignal;
  /** The gathered files and their checksums. */
  tree: string;
  files: TreeFile[];
  sums: string[];
  image: string;
  mountPoint: string;
}

/** Runs the job. Whatever happens, nothing is left behind when the promise settles. */
export async function runJob(
  spec: JobSpec,
  report: Report,
  signal: AbortSignal,
): Promise<JobResult> {
  await using workspace = await openWorkspace(spec.scratch, signal);
  const job = await prepare(workspace, { spec, report, signal });
  const served = await useImage(job);
  return {
    kernel: release(),
    cpu: cpus()[0]?.model ?? '',
    image: {
      origin: spec.image === undefined ? 'made of the same files' : `a copy of ${spec.image}`,
      bytes: served.device.size,
    },
    files: measure(job.files),
    ...served,
    ...(await compare(job)),
  };
}

async function prepare(
  { dir, mountPoint, outside }: Workspace,
  given: Pick<Job, 'spec' | 'report' | 'signal'>,
): Promise<Job> {
  const { spec, report, signal } = given;
  const tree = join(dir, 'tree');
  const sources = await listFiles(spec.roots.map(({ from, to }) => ({ from: outside(from), to })));
  const watch = watchOf(given, 'gather');
  await copyFiles(sources, tree, watch);
  // A copy of our own: nobody edits it meanwhile. Its checksums are what must come back.
  const files = sources.map(({ to, bytes }) => ({ from: join(tree, to), to, bytes }));
  const sums = await checksums(files, watch);
  report.done('gather', amount(measure(files)));

  const image = join(dir, 'disk.img');
  if (spec.image === undefined) {
    await makeImage(image, spec.size, { tree, files: files.length }, signal);
    report.done('image', `${formatSize(spec.size)}, ext4, with the files inside`);
  } else {
    await copyImage(outside(spec.image), image, signal);
    report.done('image', `a copy of ${spec.image}, which is not touched`);
  }
  return { ...given, tree, files, sums, image, mountPoint };
}

/** Serves the image, puts the files in, takes them out, checks what is left. */
async function useImage(job: Job) {
  const { spec, report, signal, image, mountPoint } = job;
  if (!existsSync('/dev/ublk-control')) await run('modprobe', ['ublk_drv'], signal);
  await using server = await serve(image, spec, signal);
  const { device } = server;
  {
    await using _mounted = await mount(device.path, mountPoint, signal);
    report.done('serve', `${device.path}, buffers: ${device.buffers.mode}`);
    await needRoom(mountPoint, measure(job.files).bytes, spec.image ?? 'The image');
    await copyFiles(job.files, join(mountPoint, COPIES), watchOf(job, 'copy'));
  }
  report.done('copy', amount(measure(job.files)));
  let verified: JobResult['verified'];
  {
    // Mounted afresh, so that nothing comes from the page cache.
    await using _mounted = await mount(device.path, mountPoint, signal);
    verified = await verify(job);
    await trim(device, mountPoint, signal);
  }
  report.done('verify', `${amount(verified)}, all equal`);
  const check = await checkImage(device.path, signal);
  report.done('check', 'clean');
  return { device, counters: await server.stop(), verified, check };
}

/** Where in the image the files are copied to. */
const COPIES = 'copied-in';

/** The files that were copied in and, in an image made of them, those that it was made with. */
async function verify(job: Job): Promise<JobResult['verified']> {
  const places = job.spec.image === undefined ? ['', COPIES] : [COPIES];
  const watch = watchOf(job, 'verify');
  const all = places.flatMap((place) =>
    job.files.map(({ to, bytes }) => ({ from: join(job.mountPoint, place, to), to, bytes })),
  );
  const sums = await checksums(all, watch);
  const wrong = all.filter((_, i) => sums[i] !== job.sums[i % job.files.length]);
  if (wrong.length === 0) return measure(all);
  const names = wrong.slice(0, 3).map(({ from }) => from);
  throw new Error(
    `${wrong.length} of ${all.length} files came back different: ${names.join(', ')}`,
  );
}

/** Gives the free space back to the image, where the device can. */
async function trim({ path }: { path: string }, dir: string, signal: AbortSignal) {
  const limit = await readFile(`/sys/block/${basename(path)}/queue/discard_max_bytes`, 'utf8');
  if (Number(limit) > 0) await run('fstrim', [dir], signal);
}

/** The speed of the image over ublk and over the loop driver. Destroys what is in it. */
async function compare(job: Job) {
  const { spec, report, signal, image } = job;
  await using server = await serve(image, spec, signal);
  const { device } = server;
  await using loopDevice = await openLoop(image, device.logicalBlockSize, signal);
  const paths = { ublk: device.path, loop: loopDevice.path };
  const { ublk, loop } = await compareDevices(paths, device.size, watchOf(job, 'compare'));
  report.done('compare', '');
  return { ublk, loop: { ...loop, direct: loopDevice.direct } };
}

function watchOf({ report, signal }: Pick<Job, 'report' | 'signal'>, step: Step): Watch {
  let shown = '';
  const progress = (share: number) => {
    const text = `${Math.floor(share * 100)} %`;
    if (text !== shown) report.progress(step, text);
    shown = text;
  };
  return { signal, progress };
}

function amount({ count, bytes }: JobResult['files']): string {
  return `${count} files, ${formatSize(bytes)}`;
}
