// How fast a block device is, by fio, and the loop device to compare with.

import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Throughput } from '../protocol.ts';
import { run } from './run.ts';

const MEBIBYTE = 1024 ** 2;
const LARGEST = 1024 * MEBIBYTE;
const SECONDS = '2';

interface FioJob {
  jobname: string;
  error: number;
  read: { bw_bytes: number; iops: number };
  write: { bw_bytes: number; iops: number };
}

/** Measures, past the page cache. Overwrites the device's first gigabyte. */
export async function measureDevice(
  device: string,
  bytes: number,
  signal: AbortSignal,
): Promise<Throughput> {
  const size = Math.floor(Math.min(bytes, LARGEST) / MEBIBYTE) * MEBIBYTE;
  const common = `--filename=${device} --size=${size} --direct=1 --ioengine=io_uring --thread`;
  const timed = `--time_based --runtime=${SECONDS} --stonewall`;
  const jobs = [
    // Once over all of it first, so that nobody pays for finding space for the image.
    '--name=fill --rw=write --bs=1M --iodepth=8',
    `--name=write --rw=write --bs=1M --iodepth=8 ${timed}`,
    `--name=read --rw=read --bs=1M --iodepth=8 ${timed}`,
    `--name=randomRead --rw=randread --bs=4k --iodepth=32 ${timed}`,
  ];
  const args = ['--output-format=json', common, ...jobs].join(' ').split(' ');
  return toThroughput(await run('fio', args, signal));
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
