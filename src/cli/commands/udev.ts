import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { getDeviceInfo } from '../../devices.ts';

const RULES = new URL('../../../udev/97-ublk.rules', import.meta.url);
const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));

/** `ublk owner ID`: user and group, as udev rules take them. */
export async function owner(id: number): Promise<void> {
  const { ownerUid, ownerGid } = await getDeviceInfo(id);
  process.stdout.write(`${ownerUid} ${ownerGid}\n`);
}

/** `ublk udev-rules` */
export function udevRules(): void {
  const rules = readFileSync(RULES, 'utf8').split('\n');
  const command = `${process.execPath} ${MAIN}`;
  const filled = rules.map((line) => line.replace('@UBLK@', command));
  process.stdout.write(filled.join('\n'));
}
