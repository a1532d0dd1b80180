import { existsSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { UblkError, UblkErrorCode } from '../errors.ts';
import { changeableByOthers } from './trusted.ts';

const MAIN = fileURLToPath(new URL('main.js', import.meta.url));
const PACKAGE = fileURLToPath(new URL('../..', import.meta.url));

/** The words that start this command as this process was started: Node.js and the program, real paths. */
export function installedProgram(): readonly [node: string, main: string] {
  return [realpathSync(process.execPath), realpathSync(MAIN)];
}

/** Refuses that `who` ("udev") runs this package as root where others than root can change the package. */
export function refuseChangeable(who: string, command: string): void {
  const [node] = installedProgram();
  for (const path of [node, ...modules(realpathSync(PACKAGE))]) {
    const changeable = changeableByOthers(path);
    if (changeable === undefined) continue;
    throw new UblkError(
      UblkErrorCode.Permission,
      `${who} would run this package as root, and others than root can change ${changeable}`,
      {
        hint:
          'install Node.js and the package as root, into folders of root (sudo npm install --global ' +
          `ublk), and run that \`${command}\``,
      },
    );
  }
}

/** What the program loads modules from: the folder that this package is installed in, or a checkout. */
function modules(root: string): string[] {
  const parent = dirname(root);
  if (basename(parent) === 'node_modules') return [parent];
  const parts = ['package.json', 'dist', 'native', 'node_modules'];
  return parts.map((part) => join(root, part)).filter((path) => existsSync(path));
}
