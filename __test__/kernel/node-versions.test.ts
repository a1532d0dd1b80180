import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, describe, expect, test } from 'vitest';

import { getDeviceInfo } from '../../src/index.ts';
import { run } from './handler-program.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { endLoad, pause, startLoad } from './load.ts';
import { expectNoDevices, need, withUblk } from './machine.ts';
import { CLI, startServerBy, ublk } from './server.ts';

/** Further programs of Node.js, joined by colons; `npm test` names some of those we promise. */
const nodes = [process.execPath, ...(process.env.UBLK_NODES ?? '').split(':').filter(Boolean)];

const LOAD = "fio(device, '--time_based', '--runtime=60').catch(() => {}); await sleep(1000);";

const PACKAGE = fileURLToPath(new URL('../../', import.meta.url));

const about = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')) as {
  version: string;
};
const [OURS, OTHER] = [about.version, '99.0.0'];

/** The command of a copy of this package with another version. */
function otherRelease(): string {
  const copy = temporaryFolder();
  for (const name of ['native', 'node_modules']) symlinkSync(join(PACKAGE, name), join(copy, name));
  cpSync(join(PACKAGE, 'dist'), join(copy, 'dist'), { recursive: true });
  writeFileSync(join(copy, 'package.json'), JSON.stringify({ ...about, version: OTHER }));
  return join(copy, 'dist/cli/main.js');
}

withUblk('an upgrade', () => {
  afterEach(expectNoDevices);

  test.for(nodes)(
    'takes devices over from %s and another release of the package, and back',
    { timeout: 600_000 },
    async (node, context) => {
      await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE');
      const config = join(temporaryFolder(), 'ublk.json');
      const target = { kind: 'file', path: sparseImage(64 << 20) };
      writeFileSync(config, JSON.stringify({ devices: { data: { target, recovery: 'reissue' } } }));
      const other = otherRelease();
      let { server } = await startServerBy(node, other, 'serve', config);
      const load = startLoad('/dev/ublkb0', '--rate_iops=50');
      await pause(1000);
      for (const [program, cli, version] of [
        [process.execPath, CLI, OURS],
        [node, other, OTHER],
      ] as const) {
        const next = await startServerBy(program, cli, 'upgrade', config);
        expect((await server).exitCode).toBe(0);
        expect(await getDeviceInfo(0)).toMatchObject({ state: 'live', serverPid: next.server.pid });
        const { stdout } = await ublk('service', 'status', '--json');
        expect(JSON.parse(stdout)).toMatchObject({ version });
        server = next.server;
        await pause(1000);
      }
      await endLoad(load);
      expect((await ublk('stop', '0')).exitCode).toBe(0);
      expect((await server).exitCode).toBe(0);
    },
  );
});

withUblk('a handler', () => {
  afterEach(expectNoDevices);

  describe.for(nodes)('on %s', (node) => {
    test('keeps what fio wrote, here and in a worker', async () => {
      const { exitCode, stdout, stderr } = await run(
        `
          for (const target of [handler, workers(1)]) {
            const device = await createDevice({ target });
            await fio(device, ...verify);
            const { total } = device.stats();
            await device.close();
            console.log(total.writes >= 1024 && total.errors);
          }
        `,
        { node },
      );
      expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: '0\n0', stderr: '' });
    });

    test('is gone after process.exit() under load, and when its thread is terminated', async () => {
      const { exitCode, stderr } = await run(
        `
          const path = ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).pathname)};
          const program = \`
            const { parentPort } = require('node:worker_threads');
            const { createDevice } = require(\${JSON.stringify(path)});
            const target = { size: '4MiB', read: ({ data }) => void data, write: async ({ data }) => void data };
            createDevice({ target }).then(({ path }) => parentPort.postMessage({ path }));
          \`;
          {
            const worker = new Worker(program, { eval: true, execArgv: [] });
            const [device] = await once(worker, 'message');
            ${LOAD}
            await worker.terminate();
          }
          const device = await createDevice({ target: workers(2), queues: 2 });
          ${LOAD}
          process.exit(3);
        `,
        { node },
      );
      // Requests that the dead handler had may have failed, and then stderr says so.
      const unanswered =
        /^(ublk: \/dev\/ublkb0: \d+ requests? failed, since their handler ended [^\n]+)?$/;
      expect({ exitCode, stderr }).toEqual({
        exitCode: 3,
        stderr: expect.stringMatching(unanswered) as string,
      });
    });
  });
});
