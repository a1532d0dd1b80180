// The addons are what their packages say.

import { openSync, readSync, closeSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';

import { folders } from './pack.ts';

/** The machine of an ELF file, `e_machine`. */
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };

/** Looks at the processor of each platform's addon. */
export function addons(root: string): string[] {
  return folders(root)
    .slice(1)
    .flatMap((folder) => {
      const platform = basename(folder);
      const file = readdirSync(folder).find((name) => name === `ublk.${platform}.node`);
      if (file === undefined) return [`npm/${platform} has no addon: npm run build:platforms`];
      const header = Buffer.alloc(20);
      const fd = openSync(join(folder, file), 'r');
      readSync(fd, header);
      closeSync(fd);
      const isElf = header.toString('latin1', 0, 4) === '\x7fELF';
      const machine = MACHINES[platform.split('-')[1]!];
      const isRight = isElf && header.readUInt16LE(18) === machine;
      return isRight ? [] : [`npm/${platform}/${file} is for another processor`];
    });
}
