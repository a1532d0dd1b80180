import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { test } from 'vitest';

import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { temporaryFolder } from './image.ts';

const KIB = 1024;

test('bytes that end as lines do are read and written whole', async () => {
  const path = join(temporaryFolder(), 'bytes');
  const bytes = Buffer.alloc(256 * KIB, '\n');
  writeFileSync(path, Buffer.alloc(bytes.length));
  await writeBytes({ path }, 0, bytes);
  expectBytes(await readBytes({ path }), bytes);
  expectBytes(await readBytes({ path }, 8 * KIB, 4 * KIB), bytes.subarray(0, 4 * KIB));
});
