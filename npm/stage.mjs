// Puts the addons that were built into native/ into their platform packages, ready for npm pack.

import { copyFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const built = new URL('../native/', import.meta.url);
for (const name of readdirSync(built)) {
  const platform = /^ublk\.(.+)\.node$/.exec(name)?.[1];
  if (platform === undefined) continue;
  const target = new URL(`${platform}/${name}`, import.meta.url);
  copyFileSync(new URL(name, built), target);
  console.log(`staged ${fileURLToPath(target)}`);
}
