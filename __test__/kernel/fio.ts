import { execa } from 'execa';

import type { Device } from '../../src/index.ts';

/**
 * Writes with a checksum in each block, in blocks of 4 KiB to 1 MiB, then reads all back.
 *
 * @param more Further arguments for fio.
 */
export async function fioVerify(
  device: Pick<Device, 'path'>,
  more: readonly string[] = [],
): Promise<void> {
  await execa('fio', [
    '--name=verify',
    `--filename=${device.path}`,
    '--rw=randwrite',
    '--bsrange=4k-1M',
    '--blockalign=4k',
    '--size=32M',
    '--ioengine=libaio',
    '--iodepth=32',
    '--direct=1',
    '--verify=crc32c',
    '--verify_fatal=1',
    '--randrepeat=0',
    ...more,
  ]);
}
