import { readFileSync } from 'node:fs';

import { execa } from 'execa';
import { expect, onTestFinished, vi } from 'vitest';

/** How often a test kills a server; `UBLK_CYCLES=100` for a long run. */
export const CYCLES = Number(process.env.UBLK_CYCLES ?? 1);

export type Load = ReturnType<typeof startLoad>;

/** Writes until it is told to stop, each block with its checksum, and reads back what it wrote. */
export function startLoad(filename: string, ...more: string[]) {
  // Where a device was is soon nothing, and fio would make a plain file there.
  const isDevice = filename.startsWith('/dev/');
  const load = execa(
    'fio',
    [
      '--name=verify',
      `--filename=${filename}`,
      '--rw=randrw',
      '--bs=4k',
      '--size=24M',
      '--ioengine=libaio',
      '--iodepth=16',
      '--direct=1',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--verify_backlog=128',
      '--randrepeat=0',
      '--time_based',
      '--runtime=36000',
      ...(isDevice ? ['--allow_file_create=0'] : []),
      ...more,
    ],
    { reject: false },
  );
  onTestFinished(() => void load.kill('SIGKILL'));
  return load;
}

/** What fio adds its errors to when a signal has ended it. */
const ENDED_BY_SIGNAL = 128;

/** The load has gone on to this moment, and met no error. */
export async function endLoad(load: Load): Promise<void> {
  expect(load.exitCode).toBeNull();
  load.kill('SIGINT');
  const { exitCode, signal, stderr } = await load;
  expect({ end: exitCode ?? signal, stderr }).toEqual({ end: ENDED_BY_SIGNAL, stderr: '' });
}

/** Bytes that were written to a device, by the kernel's count. */
function writtenTo(device: string): number {
  const stat = readFileSync(`/sys/block/${device.slice('/dev/'.length)}/stat`, 'utf8');
  return Number(stat.trim().split(/\s+/)[6]) * 512;
}

/** Resolves once so many bytes more were written to a device. */
export async function moreWritten(device: string, bytes: number): Promise<void> {
  const before = writtenTo(device);
  await vi.waitFor(() => expect(writtenTo(device)).toBeGreaterThan(before + bytes), {
    timeout: 120_000,
  });
}

export const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
