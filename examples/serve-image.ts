// Serves a disk image as a block device until Ctrl-C or SIGTERM.
// Prints one line of JSON when the device is there, and one with what was done when it is gone.
//
//   npx tsx examples/serve-image.ts disk.img --queues 2

import { parseArgs } from 'node:util';
import { type BufferMode, createDevice, targets } from 'ublk';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { queues: { type: 'string', default: '1' }, buffers: { type: 'string' } },
});

// First of all: a signal that comes while the device is being made must not leave half of one.
const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());

const device = await createDevice(
  {
    target: targets.file(positionals[0] ?? 'disk.img'),
    queues: Number(values.queues),
    buffers: values.buffers as BufferMode | undefined,
  },
  { signal: stop.signal },
);
stop.signal.addEventListener('abort', () => void device.close());

const { path, size, logicalBlockSize, queues, depth, buffers, features } = device;
console.log(JSON.stringify({ path, size, logicalBlockSize, queues, depth, buffers, features }));

await device.closed;
console.log(JSON.stringify(device.stats().total));
