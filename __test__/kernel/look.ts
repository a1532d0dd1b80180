import { readFile } from 'node:fs/promises';

import type { Device } from '../../src/index.ts';

/** A setting of the device's queue, as the kernel shows the setting. */
export async function setting({ id }: Device, name: string): Promise<string> {
  return (await readFile(`/sys/block/ublkb${id}/queue/${name}`, 'utf8')).trim();
}
