// A device answered for in JavaScript, by the built package: `node server.mjs KIND ID READY`.
// Writes its process id to the file READY when the device can be opened; SIGTERM takes it down.
import { writeFileSync } from 'node:fs';

import { createDevice, handlerModule, targets } from '../../dist/index.js';
import nothing from './nothing.mjs';

const [kind, id, ready] = process.argv.slice(2);
const backends = { disk: targets.file(process.env.backing ?? '') };
const size = '256MiB';

const kinds = {
  sync: () => nothing,
  async: () => ({ ...nothing, read: async () => {}, write: async () => {} }),
  worker: () => handlerModule(new URL('nothing.mjs', import.meta.url)),
  map: () => ({
    size,
    backends,
    map: ({ offset }) => ({ backend: 'disk', offset }),
  }),
};

const device = await createDevice({ target: kinds[kind](), id: Number(id) });
process.once('SIGTERM', () => device.close());
writeFileSync(ready, String(process.pid));
