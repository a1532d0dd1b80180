// Serves an image (read-only) and shows every second what its clients do.
//
//   npx tsx examples/watch.ts disk.img

import { setInterval } from 'node:timers/promises';
import { createDevice, formatSize, targets } from 'ublk';

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
const { signal } = stop;

await using device = await createDevice(
  { target: targets.file(process.argv[2] ?? 'disk.img', { readOnly: true }) },
  { signal },
);
console.log(
  `${device.path}: read-only, ${formatSize(device.size)}, buffers: ${device.buffers.mode}`,
);

let before = device.stats().total;
try {
  for await (const _ of setInterval(1000, undefined, { signal })) {
    const now = device.stats().total;
    const reads = now.reads - before.reads;
    console.log(`${reads} reads/s, ${formatSize(now.readBytes - before.readBytes)}/s`);
    before = now;
  }
} catch (error) {
  if (!signal.aborted) throw error;
}
