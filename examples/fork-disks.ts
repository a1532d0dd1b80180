// One disk, and copies of it for many virtual machines or CI jobs: the disk is warmed up once, and is then
// forked while it is in use, in milliseconds and without a copy. Needs root.
//
//   npx tsx examples/fork-disks.ts IMAGE FOLDER COUNT WARM JOB
//
// IMAGE is only read. WARM and JOB are shell commands; $DISK is their device, and $N the number of the job.
// The jobs run side by side, each on a disk of its own; FOLDER holds what they have changed.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createDevice, createReactorPool, formatSize, overlayInfo, targets } from 'ublk';

const [image = '', folder = '', count = '10', warm = 'true', job = 'true'] = process.argv.slice(2);
if (image === '' || folder === '') {
  console.error('usage: fork-disks.ts IMAGE FOLDER COUNT WARM JOB');
  process.exit(2);
}

/** Runs a shell command with a disk. */
async function run(command: string, disk: string, n: number): Promise<void> {
  const env = { ...process.env, DISK: disk, N: String(n) };
  const shell = spawn('sh', ['-c', command], { env, stdio: ['ignore', 'inherit', 'inherit'] });
  const [status] = (await once(shell, 'exit')) as [number | null];
  if (status !== 0) throw new Error(`job ${n} on ${disk}: exit status ${status}`);
}

await mkdir(folder, { recursive: true });
const base = targets.file(image, { readOnly: true });
// Many disks on few threads; with a virtual machine behind each, a limit keeps the disks fair.
await using pool = await createReactorPool({ maxReactors: 8 });
const serve = (layer: string, create = false) =>
  createDevice({
    target: targets.overlay(base, layer, { create }),
    pool,
    throttle: { iops: 50_000 },
  });

await using parent = await serve(join(folder, 'parent.layer'), true);
await run(warm, parent.path, 0);

const children = Array.from({ length: Number(count) }, (_, at) => {
  return join(folder, `job${at + 1}.layer`);
});
const begin = performance.now();
// A virtual machine monitor stores the generation beside its snapshot of the memory.
const { path, generation } = await parent.fork(children);
const took = (performance.now() - begin).toFixed(1);
console.log(`${children.length} forks of generation ${generation} (${path}) in ${took} ms`);

await Promise.all(
  children.map(async (layer, at) => {
    await using device = await serve(layer);
    await run(job, device.path, at + 1);
  }),
);
for (const layer of children) {
  const [own] = await overlayInfo(layer);
  console.log(`${layer} stores ${formatSize(own?.stored ?? 0)}`);
}
