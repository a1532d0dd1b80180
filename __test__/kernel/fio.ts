import { execa } from 'execa';

import type { Device } from '../../src/index.ts';

/**
 * Requests of all sizes, many of them small, so that queues fill up and requests are split and put
 * together, in few bytes: what an emulated machine spends its time on is the bytes.
 */
export const MIXED: readonly string[] = [
  '--rw=randwrite',
  '--bssplit=4k/50:16k/20:128k/20:1M/10',
  '--blockalign=4k',
  '--size=16M',
];

/** Each block has a checksum, and is read back when all are written. */
export const VERIFY: readonly string[] = ['--verify=crc32c', '--verify_fatal=1'];

const LOAD = [
  '--ioengine=libaio',
  '--iodepth=32',
  '--direct=1',
  '--randrepeat=0',
  // Where a device was is soon nothing.
  '--allow_file_create=0',
];

/**
 * Writes with a checksum in each block, then reads all back.
 *
 * @param more Further arguments for fio.
 */
export async function fioVerify(
  device: Pick<Device, 'path'>,
  more: readonly string[] = [],
): Promise<void> {
  const job = ['--name=verify', `--filename=${device.path}`];
  await execa('fio', [...job, ...LOAD, ...MIXED, ...VERIFY, ...more]);
}

/** One device of many that fio is to work on. */
export interface FioJob {
  path: string;
  /** Arguments for this job only. */
  more?: readonly string[];
}

/**
 * Works on all devices at once, in one fio, whose start costs more than the work on one of them.
 * Resolves with the errno of each job: 0 for success, -1 for one that has done nothing.
 */
export async function fioAll(
  jobs: readonly FioJob[],
  how: readonly string[] = [...MIXED, ...VERIFY],
): Promise<number[]> {
  const each = jobs.flatMap(({ path, more = [] }, index) => [
    `--name=job${index}`,
    `--filename=${path}`,
    ...more,
  ]);
  const all = ['--name=global', '--output-format=json', ...LOAD, ...how];
  const { stdout } = await execa('fio', [...all, ...each], { reject: false });
  // Complaints of single requests come before the report.
  const report = JSON.parse(stdout.slice(stdout.indexOf('\n{') + 1)) as FioReport;
  return jobs.map((_, index) => {
    const done = report.jobs.find(({ jobname }) => jobname === `job${index}`);
    // A device that is not there is no error to fio.
    if (!done || done.read.io_bytes + done.write.io_bytes === 0) return done?.error || -1;
    return done.error;
  });
}

interface FioReport {
  jobs: {
    jobname: string;
    error: number;
    read: { io_bytes: number };
    write: { io_bytes: number };
  }[];
}
