// A device answered for in JavaScript, by the built package: `node server.mjs ID READY KIND
// [spin=USEC]`.
// Writes its process id to the file READY when the device can be opened; SIGTERM takes it down.
import { writeFileSync } from 'node:fs';

import { createDevice, handlerModule, targets } from '../../dist/index.js';
import nothing from './nothing.mjs';

const [id, ready, kind, spin = 'spin=0'] = process.argv.slice(2);
const backends = { disk: targets.file(process.env.backing ?? '') };
const size = '256MiB';

const kinds = {
  sync: () => nothing,
  async: () => ({
    ...nothing,
    read: async ({ data }) => void data,
    write: async ({ data }) => void data,
  }),
  worker: () => handlerModule(new URL('nothing.mjs', import.meta.url)),
  map: () => ({
    size,
    backends,
    map: ({ offset }) => ({ backend: 'disk', offset }),
  }),
};

const spinUsec = Number(spin.slice('spin='.length));
const device = await createDevice({ target: kinds[kind](), id: Number(id), spinUsec });
process.once('SIGTERM', () => device.close());
writeFileSync(ready, String(process.pid));
