// How fast block devices are, by fio, and the loop device to compare with.

import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Throughput } from '../protocol.ts';
import type { Watch } from './files.ts';
import { run } from './run.ts';

const MEBIBYTE = 1024 ** 2;
const LARGEST = 1024 * MEBIBYTE;
const ROUNDS = 3;
const TIMED = '--time_based --runtime=1 --stonewall';
const JOBS = [
  `--name=write --rw=write --bs=1M --iodepth=8 ${TIMED}`,
  `--name=read --rw=read --bs=1M --iodepth=8 ${TIMED}`,
  `--name=randomRead --rw=randread --bs=4k --iodepth=32 ${TIMED}`,
];

interface FioJob {
  jobname: string;
  error: number;
  read: { bw_bytes: number; iops: number };
  write: { bw_bytes: number; iops: number };
}

/**
 * Measures both devices in turn, past the page cache, and takes the best that each achieved:
 * whatever else runs on the machine slows now one, now the other. Overwrites their first gigabyte.
 */
export async function compareDevices<Name extends string>(
  devices: Record<Name, string>,
  bytes: number,
  { signal, progress }: Watch,
): Promise<Record<Name, Throughput>> {
  const size = Math.floor(Math.min(bytes, LARGEST) / MEBIBYTE) * MEBIBYTE;
  const names = Object.keys(devices) as Name[];
  const best = {} as Record<Name, Throughput>;
  // Once over all of it first, so that nobody pays for finding space for the image.
  await fio(devices[names[0]!], size, ['--name=fill --rw=write --bs=1M --iodepth=8'], signal);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [i, name] of names.entries()) {
      const figures = toThroughput(await fio(devices[name], size, JOBS, signal));
      best[name] = best[name] ? better(best[name], figures) : figures;
      progress((round * names.length + i + 1) / (ROUNDS * names.length));
    }
  }
  return best;
}

function fio(device: string, size: number, jobs: readonly string[], signal: AbortSignal) {
  const common = `--filename=${device} --size=${size} --direct=1 --ioengine=io_uring --thread`;
  return run('fio', ['--output-format=json', common, ...jobs].join(' ').split(' '), signal);
}

function better(a: Throughput, b: Throughput): Throughput {
  return {
    write: Math.max(a.write, b.write),
    read: Math.max(a.read, b.read),
    randomRead: Math.max(a.randomRead, b.randomRead),
  };
}

/** The three figures in fio's output. */
export function toThroughput(output: string): Throughput {
  // fio puts its warnings before the JSON.
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: FioJob[] };
  const failed = jobs.find(({ error }) => error !== 0);
  if (failed) throw new Error(`fio's job ${failed.jobname} failed with errno ${failed.error}`);
  const job = (name: string) => jobs.find(({ jobname }) => jobname === name)!;
  return {
    write: job('write').write.bw_bytes,
    read: job('read').read.bw_bytes,
    randomRead: job('randomRead').read.iops,
  };
}

export interface LoopDevice extends AsyncDisposable {
  path: string;
  /** Whether it reads and writes the image past the page cache. */
  direct: boolean;
}

/** Lets the kernel's loop driver serve `image`. */
export async function openLoop(
  image: string,
  blockSize: number,
  signal: AbortSignal,
): Promise<LoopDevice> {
  await run('modprobe', ['-q', 'loop'], signal).catch(() => {}); // it may be built in
  const wishes = ['--direct-io=on', '--sector-size', String(blockSize)];
  const path = (await run('losetup', ['--find', '--show', ...wishes, image], signal)).trim();
  const dio = await readFile(`/sys/block/${basename(path)}/loop/dio`, 'utf8').catch(() => '0');
  return {
    path,
    direct: dio.trim() === '1',
    async [Symbol.asyncDispose]() {
      await run('losetup', ['--detach', path]);
    },
  };
}
