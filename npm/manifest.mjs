// The root package needs one of the platform packages, which are published with it. In a checkout they
// do not exist, so package.json names them only in what is packed: `add` before, `remove` after. What
// is published keeps them (npm reads the manifest once more after it has packed).

import { readFileSync, renameSync, writeFileSync } from 'node:fs';

const file = new URL('../package.json', import.meta.url);
const { optionalDependencies: _old, ...manifest } = JSON.parse(readFileSync(file, 'utf8'));
const short = JSON.parse(readFileSync(new URL('platforms.json', import.meta.url), 'utf8'));
const { packageName, targets } = manifest.napi;
const platforms = targets.map((target) => [`${packageName}-${short[target]}`, manifest.version]);
const keep = process.argv[2] === 'add' || process.env.npm_command === 'publish';
const all = keep ? { ...manifest, optionalDependencies: Object.fromEntries(platforms) } : manifest;
// Whoever reads package.json meanwhile reads all of it.
const draft = new URL('../package.json.draft', import.meta.url);
writeFileSync(draft, `${JSON.stringify(all, null, 2)}\n`);
renameSync(draft, file);
