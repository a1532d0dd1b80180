// Puts the addons that were built into native/ into their platform packages, stripped, ready for npm
// pack. Those in native/ keep their symbols, for profiles. STRIP names the program where an addon is
// for another processor (aarch64-linux-gnu-strip).

import { spawnSync } from 'node:child_process';
import { copyFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const built = new URL('../native/', import.meta.url);
for (const name of readdirSync(built)) {
  const platform = /^ublk\.(.+)\.node$/.exec(name)?.[1];
  if (platform === undefined) continue;
  const target = new URL(`${platform}/${name}`, import.meta.url);
  copyFileSync(new URL(name, built), target);
  const stripped = spawnSync(process.env.STRIP ?? 'strip', [
    '--strip-unneeded',
    fileURLToPath(target),
  ]);
  if (stripped.status !== 0) console.warn(`not stripped: ${stripped.error ?? stripped.stderr}`);
  console.log(`staged ${fileURLToPath(target)}`);
}
