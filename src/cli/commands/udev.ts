import { readFileSync } from 'node:fs';

import { getDeviceInfo } from '../../devices.ts';
import { UblkError, UblkErrorCode } from '../../errors.ts';
import { NAMES_RULES } from '../../names.ts';
import { installedProgram, refuseChangeable } from '../installed.ts';

const FOLDER = new URL('../../../udev/', import.meta.url);

/** `ublk owner ID`: user and group, as udev rules take them. */
export async function owner(id: number): Promise<void> {
  const { ownerUid, ownerGid } = await getDeviceInfo(id);
  process.stdout.write(`${ownerUid} ${ownerGid}\n`);
}

/** `ublk udev-rules` */
export function udevRules({ names }: { readonly names?: true }): void {
  process.stdout.write(names ? namesRules() : unprivilegedRules());
}

/** The rules that make `/dev/ublk/by-name`; these rules run no program. */
export function namesRules(): string {
  return readFileSync(new URL(NAMES_RULES, FOLDER), 'utf8');
}

function unprivilegedRules(): string {
  const program = installedProgram();
  program.forEach(refuseCharacters);
  refuseChangeable('udev', 'ublk udev-rules');
  const rules = readFileSync(new URL('97-ublk.rules', FOLDER), 'utf8').split('\n');
  return rules.map((line) => line.replace('@UBLK@', () => program.join(' '))).join('\n');
}

/** In a rule these end the program's name, or stand for something else. */
function refuseCharacters(path: string): void {
  if (!/[\s"'\\%$]/.test(path)) return;
  throw new UblkError(
    UblkErrorCode.InvalidArgument,
    `udev cannot run ${path}: the path has spaces, quotes, or characters that a rule replaces`,
    { hint: 'install the package at another place' },
  );
}
