import { execFileSync } from 'node:child_process';

import { expect, test } from 'vitest';

import { type Completion, createDevice, targets } from '../../src/index.ts';

test('completions of a native target are what its clients did', async () => {
  await using device = await createDevice({ target: targets.null({ size: '64MiB' }) });
  const batches = device.completions();
  // Whatever udev wants to know of a new disk, it does not write.
  const dd = ['if=/dev/zero', `of=${device.path}`, 'oflag=direct', 'status=none'];
  execFileSync('dd', [...dd, 'bs=8k', 'seek=2', 'count=3']);
  execFileSync('dd', [...dd, 'bs=4k', 'count=1', 'seek=100']);
  await device.close();
  const writes: Completion[] = [];
  for await (const { completions, dropped } of batches) {
    expect(dropped).toBe(0);
    writes.push(...completions.filter(({ op }) => op === 'write'));
  }
  expect(writes.map(({ offset, length, result }) => [offset, length, result])).toEqual([
    [16384, 8192, 8192],
    [24576, 8192, 8192],
    [32768, 8192, 8192],
    [409600, 4096, 4096],
  ]);
  for (const { latency, tag, queue } of writes) {
    expect(latency).toBeGreaterThan(0);
    expect(tag).toBeLessThan(device.depth);
    expect(queue).toBe(0);
  }
});
