import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { expect, onTestFinished, test } from 'vitest';

const dist = (file: string) => fileURLToPath(new URL(`../../../dist/${file}`, import.meta.url));

/** Leaves a simulated disk 0 descriptors, then 1, and so on, and says how each attempt ends. */
const program = `
import { closeSync, openSync } from 'node:fs';
const { targets } = await import(${JSON.stringify(dist('index.js'))});
const { simulate } = await import(${JSON.stringify(dist('testing/index.js'))});
const target = targets.file(process.env.IMAGE);
async function attempt() {
  const disk = await simulate(target);
  const bytes = await disk.read(0, 4096);
  await disk.close();
  return bytes[0];
}
await attempt(); // What stays open from now on is open.
const taken = [];
try {
  for (;;) taken.push(openSync('/dev/null'));
} catch {}
const outcomes = [];
for (let spare = 0; spare < 9; spare++) {
  outcomes.push(await attempt().catch(({ code, hint }) => ({ code, hint })));
  closeSync(taken.pop());
}
console.log(JSON.stringify(outcomes));
`;

test('a simulated disk that finds too few descriptors says so, and serves with enough', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-limits-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const IMAGE = join(folder, 'disk.img');
  writeFileSync(IMAGE, Buffer.alloc(1 << 20, 7));
  const args = ['-c', 'ulimit -n 256; exec node --input-type=module -e "$0"', program];
  const { stdout } = await execa('sh', args, { env: { IMAGE }, timeout: 100_000 });
  const outcomes = JSON.parse(stdout) as unknown[];
  const refused = { code: 'ERR_UBLK_RESOURCES', hint: expect.stringContaining('ulimit -n') };
  const failed = outcomes.filter((one) => one !== 7);
  expect(failed.length).toBeGreaterThan(2);
  expect(failed).toEqual(failed.map(() => refused));
  expect(outcomes).toContain(7);
}, 120_000);
