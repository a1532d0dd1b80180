// A scratch disk on an NBD server: what is written goes into a local layer, the server's export is only
// read. A lost connection is waited for, for as long as the time-out says.
//
//   nbdkit --read-only file debian.img
//   sudo npx tsx examples/nbd-disk.ts nbd://localhost scratch.layer

import { createDevice, type Device, targets } from 'ublk';

/** A device with the contents of the export at `uri`, whose writes `layer` keeps. */
export async function scratchDisk(uri: string, layer: string): Promise<Device> {
  const base = targets.nbd(uri, { readOnly: true, reconnectTimeoutMs: 600_000 });
  return await createDevice({ target: targets.overlay(base, layer, { create: true }) });
}

if (process.argv[1] === import.meta.filename) {
  const [, , uri = '', layer = ''] = process.argv;
  const device = await scratchDisk(uri, layer);
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => void device.close());
  }
  console.log(`${device.path}: ${uri}, with changes in ${layer}`);
  await device.closed;
}
