// A disk image for clients of NBD, without root and without ublk, until Ctrl-C.
//
//   npx tsx examples/export-image.ts disk.img /tmp/disk.sock
//   qemu-img info 'nbd+unix:///?socket=/tmp/disk.sock'

import { closeOnSignals, exportNbd, formatSize, targets } from 'ublk';

const [image, socket] = process.argv.slice(2);
if (image === undefined || socket === undefined) {
  console.error('usage: export-image.ts IMAGE SOCKET');
  process.exit(2);
}

closeOnSignals();
const exported = await exportNbd(targets.file(image), { socket });
console.log(exported.uri);
await exported.closed;
const { reads, readBytes, writes, writeBytes } = exported.stats().total;
console.log(
  `${reads} reads (${formatSize(readBytes)}), ${writes} writes (${formatSize(writeBytes)})`,
);
