import { afterEach, describe, expect, test } from 'vitest';

import { run } from './handler-program.ts';
import { expectNoDevices, withUblk } from './machine.ts';

/** Further programs of Node.js, joined by colons; `npm test` names some of those we promise. */
const nodes = [process.execPath, ...(process.env.UBLK_NODES ?? '').split(':').filter(Boolean)];

const LOAD = "fio(device, '--time_based', '--runtime=60').catch(() => {}); await sleep(1000);";

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
