import { existsSync, readFileSync, realpathSync } from 'node:fs';
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

/**
 * What the program loads modules from: the folder that this package is installed in, or the parts of a
 * checkout, without the thousands of files that only development needs.
 */
export function modules(root: string): string[] {
  const parent = dirname(root);
  if (basename(parent) === 'node_modules') return [parent];
  const parts = ['package.json', 'dist', 'native'].map((part) => join(root, part));
  const all = [...parts, ...dependencies(root, join(root, 'node_modules'))];
  return all.filter((path) => existsSync(path));
}

interface Manifest {
  readonly dependencies?: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
}

/** The dependencies of a package and theirs, as npm lays them out in `folder`; others lie within these. */
function dependencies(root: string, folder: string, found = new Set<string>()): Set<string> {
  const file = join(root, 'package.json');
  if (!existsSync(file)) return found;
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) {
    const path = join(folder, name);
    if (!found.has(path)) dependencies(path, folder, found.add(path));
  }
  return found;
}
