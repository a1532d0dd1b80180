// A disk image for clients of NBD, without root and without ublk, until Ctrl-C or SIGTERM.
//
//   npx tsx examples/export-image.ts disk.img /tmp/disk.sock
//   qemu-img info 'nbd+unix:///?socket=/tmp/disk.sock'

import { exportNbd, formatSize, targets } from 'ublk';

const [image, socket] = process.argv.slice(2);
if (image === undefined || socket === undefined) {
  console.error('usage: export-image.ts IMAGE SOCKET');
  process.exit(2);
}

// First of all: a signal may come while the export is being made.
const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());

const exported = await exportNbd(targets.file(image), { socket }, { signal: stop.signal });
stop.signal.addEventListener('abort', () => void exported.close());
console.log(exported.uri);
await exported.closed;
const { reads, readBytes, writes, writeBytes } = exported.stats().total;
console.log(
  `${reads} reads (${formatSize(readBytes)}), ${writes} writes (${formatSize(writeBytes)})`,
);
