import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { getDeviceInfo } from '../../devices.ts';
import { UblkError, UblkErrorCode } from '../../errors.ts';
import { changeableByOthers } from '../trusted.ts';

const RULES = new URL('../../../udev/97-ublk.rules', import.meta.url);
const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));
const PACKAGE = fileURLToPath(new URL('../../..', import.meta.url));

/** `ublk owner ID`: user and group, as udev rules take them. */
export async function owner(id: number): Promise<void> {
  const { ownerUid, ownerGid } = await getDeviceInfo(id);
  process.stdout.write(`${ownerUid} ${ownerGid}\n`);
}

/** `ublk udev-rules` */
export function udevRules(): void {
  const program = [process.execPath, MAIN].map((path) => realpathSync(path));
  program.forEach(refuseCharacters);
  refuseChangeable([program[0]!, ...modules(realpathSync(PACKAGE))]);
  const rules = readFileSync(RULES, 'utf8').split('\n');
  const filled = rules.map((line) => line.replace('@UBLK@', () => program.join(' ')));
  process.stdout.write(filled.join('\n'));
}

/** What the program loads modules from: the folder that this package is installed in, or a checkout. */
function modules(root: string): string[] {
  const parent = dirname(root);
  if (basename(parent) === 'node_modules') return [parent];
  const parts = ['package.json', 'dist', 'native', 'node_modules'];
  return parts.map((part) => join(root, part)).filter((path) => existsSync(path));
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

/** udev runs the program as root: who can change the program becomes root. */
function refuseChangeable(paths: readonly string[]): void {
  for (const path of paths) {
    const changeable = changeableByOthers(path);
    if (changeable === undefined) continue;
    throw new UblkError(
      UblkErrorCode.Permission,
      `udev would run this package as root, and others than root can change ${changeable}`,
      {
        hint:
          'install Node.js and the package as root, into folders of root (sudo npm install --global ' +
          'ublk), and run that `ublk udev-rules`',
      },
    );
  }
}
