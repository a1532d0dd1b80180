/** A program of a user, as TypeScript text: it is compiled against the installed package. */
export const CONSUMER = `
import { readFile, writeFile } from 'node:fs/promises';
import { createDevice, targets, UblkError, UblkErrorCode, type DeviceInfo } from 'ublk';
import { getDeviceInfo, type DeviceOptions, type EndReason } from 'ublk';
import { simulate, type SimulatedDisk } from 'ublk/testing';

const bytes = new Uint8Array(1 << 20).map((_, index) => index % 251);
await writeFile('/dev/shm/consumer.img', bytes);

const options: DeviceOptions = { target: targets.file('/dev/shm/consumer.img'), queues: 2 };
const device = await createDevice(options, { signal: AbortSignal.timeout(60_000) });
try {
  device.on('error', (error) => console.error(error.code, error.hint));
  const info: DeviceInfo = await getDeviceInfo(device.id);
  const read: Uint8Array = await readFile(info.path);
  if (Buffer.compare(read, bytes) !== 0) throw new Error('what was read is not what is there');
  const { total } = device.stats();
  const moved: number = total.zeroCopyBytes + total.copiedBytes;
  if (moved < read.length) throw new Error('bytes were not counted');
  console.log(\`served \${read.length} bytes as \${device.path}\`);
} finally {
  await device.close();
}
const end: EndReason = await device.closed;
if (end !== 'closed') throw new Error(end);

try {
  await createDevice({ target: targets.file('/no/such.img') });
} catch (error) {
  if (!UblkError.is(error) || error.code !== UblkErrorCode.NoBackend) throw error;
}

const disk: SimulatedDisk = await simulate(targets.null({ size: '1GiB' }), { seed: 7 });
const nothing: Uint8Array = await disk.read(0, 4096);
if (nothing.length !== 4096) throw new Error('the simulated disk read something else');
await disk.close();

// @ts-expect-error An option that does not exist.
void (() => createDevice({ target: targets.null({ size: 1 }), queueDepth: 3 }));
// @ts-expect-error Targets have a size.
void (() => targets.null());
`;

/** Its compiler options: as strict as they get, and the package's own declarations checked too. */
export const TSCONFIG = {
  compilerOptions: {
    target: 'es2022',
    module: 'nodenext',
    types: ['node'],
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: false,
  },
  files: ['consumer.ts'],
};

/** What README and types show of handlers, as TypeScript text. */
export const HANDLERS = `
import { Buffer } from 'node:buffer';
import { createDevice, handler, targets } from 'ublk';

const disk = Buffer.alloc(1 << 20);
export const device = await createDevice({
  target: handler({
    size: disk.length,
    read: ({ data, offset }) => void disk.copy(data, 0, offset),
    write: ({ data, offset }) => void data.copy(disk, offset),
  }),
});
export const mapped = await createDevice({
  target: handler({
    size: '1MiB',
    backends: { hot: targets.null({ size: '1MiB' }) },
    map: ({ offset }) => ({ backend: 'hot', offset }),
    async flush(request) {
      await request.flush('hot');
    },
  }),
});

class Disk {
  readonly size = 4096;
  readonly blocks = new Map<number, Buffer>();
  read(): void {}
}
export const own = await createDevice({ target: handler(new Disk()) });
export const plain = await createDevice({ target: new Disk() });
export const literal = await createDevice({
  target: { size: 4096, read: ({ data }) => void data.fill(0) },
});

// @ts-expect-error A backend that does not exist.
handler({ size: 1, backends: { hot: targets.null({ size: 1 }) }, map: () => ({ backend: 'cold', offset: 0 }) });
// @ts-expect-error A key that does not exist.
handler({ size: 1, read() {}, blocksize: 512 });
`;

/** As strict as they get, and the package's own declarations checked too. */
export const STRICT = {
  target: 'es2022',
  lib: ['es2022', 'esnext.disposable'],
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: false,
  noEmit: true,
};

/** How modules and types can be found. */
export const SETUPS: readonly object[] = [
  { module: 'nodenext' },
  { module: 'nodenext', types: ['node'] },
  { module: 'nodenext', types: [] },
  { module: 'esnext', moduleResolution: 'bundler' },
  { module: 'esnext', moduleResolution: 'bundler', types: ['node'] },
];
