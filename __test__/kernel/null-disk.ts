import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';

const CONFIG = '/sys/kernel/config';

const folderOf = (name: string): string => join(CONFIG, 'nullb', name);

/**
 * A block device that keeps its data in memory, `/dev/NAME`, with null_blk's attributes. Made by
 * configfs, since the module's parameters count only when it is loaded first.
 */
export async function makeNullDisk(
  name: string,
  attributes: Record<string, string>,
): Promise<string> {
  await execa('modprobe', ['null_blk', 'nr_devices=0']);
  if (!existsSync(`${CONFIG}/nullb`)) await execa('mount', ['-t', 'configfs', 'none', CONFIG]);
  mkdirSync(folderOf(name));
  const settings = { memory_backed: '1', size: '256', ...attributes, power: '1' };
  for (const [attribute, value] of Object.entries(settings)) {
    writeFileSync(join(folderOf(name), attribute), value);
  }
  return `/dev/${name}`;
}

/** Takes a disk of {@link makeNullDisk} away. */
export function removeNullDisk(name: string): void {
  rmdirSync(folderOf(name));
}
