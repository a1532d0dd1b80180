import { readFile } from 'node:fs/promises';

import { execa } from 'execa';

import type { Device } from '../../src/index.ts';

const MOST_BYTES = 64 << 20;

/** A setting of the device's queue, as the kernel shows the setting. */
export async function setting({ id }: Device, name: string): Promise<string> {
  return (await readFile(`/sys/block/ublkb${id}/queue/${name}`, 'utf8')).trim();
}

/** All bytes of a device of at most 64 MiB, past the page cache. */
export async function contents({ path }: Device): Promise<Buffer> {
  const dd = [`if=${path}`, 'iflag=direct', 'bs=1M', 'status=none'];
  const { stdout } = await execa('dd', dd, { encoding: 'buffer', maxBuffer: MOST_BYTES });
  return Buffer.from(stdout);
}
