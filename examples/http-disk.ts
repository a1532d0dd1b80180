// A read-only disk that is a file on a web server. Clients' page cache keeps what was read.
//
//   npx tsx examples/http-disk.ts https://example.org/disk.img

import { createDevice, targets } from 'ublk';

const device = await createDevice({ target: targets.http(process.argv[2] ?? '') });
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => void device.close());
}
console.log(`${device.path}: try mount -o ro ${device.path} /mnt`);
await device.closed;
