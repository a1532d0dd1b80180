import { execa } from 'execa';

import type { NbdExport } from '../../src/index.ts';

/** Starts fio on an export: 4 KiB requests, each block with its checksum, read back. */
export const startVerify = ({ uri }: Pick<NbdExport, 'uri'>, ...more: string[]) =>
  execa('fio', [
    '--name=verify',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--bs=4k',
    '--size=32M',
    '--iodepth=16',
    '--verify=crc32c',
    '--verify_fatal=1',
    '--verify_state_save=0',
    ...more,
  ]);
