// Writes the table of metrics into docs/guides/watching.md, from the list in src/metrics/families.ts.
//
//   npx tsx scripts/metrics.ts

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { withTable } from './metrics/table.ts';

const GUIDE = fileURLToPath(new URL('../docs/guides/watching.md', import.meta.url));

await writeFile(GUIDE, await withTable(await readFile(GUIDE, 'utf8')));
