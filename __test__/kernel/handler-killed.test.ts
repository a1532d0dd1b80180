import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, expect, test } from 'vitest';

import { getDeviceInfo } from '../../src/index.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { CYCLES, endLoad, pause, startLoad } from './load.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1 << 20;

/** A disk that JavaScript keeps in a file: what a write has put there outlives the process. */
const diskIn = (path: string): string => `
  import { fsync, openSync, read, write } from 'node:fs';
  import { promisify } from 'node:util';
  const file = openSync(${JSON.stringify(path)}, 'r+');
  const [readAt, writeAt, sync] = [read, write, fsync].map((call) => promisify(call));
  export default {
    size: ${64 * MIB},
    async read({ data, offset }) {
      await readAt(file, data, 0, data.length, offset);
    },
    async write({ data, offset }) {
      await writeAt(file, data, 0, data.length, offset);
    },
    async flush() {
      await sync(file);
    },
  };
`;

withUblk('a handler whose server is killed', () => {
  afterEach(expectNoDevices);

  test(
    'has lost no answered write when the next server serves',
    { timeout: 120_000 * CYCLES + 180_000 },
    async (context) => {
      await need(context, 'USER_RECOVERY_REISSUE');
      const folder = temporaryFolder();
      const url = join(folder, 'disk.mjs');
      writeFileSync(url, diskIn(sparseImage(64 * MIB)));
      const config = join(folder, 'ublk.json');
      const data = { target: { kind: 'module', url }, id: 0, queues: 2, recovery: 'reissue' };
      writeFileSync(config, JSON.stringify({ devices: { data } }));
      let { server } = await startServer('serve', config);
      const load = startLoad('/dev/ublkb0');
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        await pause(1000 + Math.random() * 1000);
        server.kill('SIGKILL');
        await server;
        ({ server } = await startServer('serve', config));
        expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: server.pid });
      }
      await pause(1000);
      await endLoad(load);
      expect((await ublk('stop', '0')).exitCode).toBe(0);
      expect((await server).exitCode).toBe(0);
    },
  );
});
