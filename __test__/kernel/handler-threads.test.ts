import { afterEach, describe, expect, test } from 'vitest';

import { PACKAGE, run } from './handler-program.ts';
import { expectNoDevices, withUblk } from './machine.ts';

withUblk('a handler', () => {
  afterEach(expectNoDevices);

  describe('in worker threads', () => {
    test.for([1, 2])('keeps what fio wrote (%s)', async (count) => {
      const { exitCode, stdout } = await run(`
        const device = await createDevice({ target: workers(${count}), queues: 2 });
        await fio(device, ...verify);
        const { total } = device.stats();
        await device.close();
        console.log(total.writes >= 1024 && total.errors);
      `);
      expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: '0' });
    });

    test('that crashes closes its device', async () => {
      const { exitCode, stdout } = await run(`
        const device = await createDevice({ target: workers(1) });
        // A slow machine has others: an event loop that is late.
        device.on('warning', ({ code, message }) => {
          if (code === 'ERR_UBLK_HANDLER') console.log(code, message);
        });
        const last = ['bs=4096', 'skip=1024', 'count=1', 'iflag=direct'];
        await run('dd', ['if=' + device.path, 'of=/dev/null', ...last]).catch(() => {});
        console.log(await device.closed);
      `);
      expect(exitCode).toBe(0);
      expect(stdout).toBe('ERR_UBLK_HANDLER a worker of the handler has ended: crash\nclosed');
    });

    test('whose module fails is no device', async () => {
      const { stdout } = await run(`
        await createDevice({ target: handlerModule('/nowhere.mjs') }).catch(({ code }) =>
          console.log(code));
      `);
      expect(stdout).toBe('ERR_UBLK_HANDLER');
    });
  });

  describe('that is busy', () => {
    const LOAD = "fio(device, '--time_based', '--runtime=60').catch(() => {}); await sleep(1500);";

    test('is gone after process.exit()', async () => {
      const { exitCode } = await run(`
        const device = await createDevice({ target: handler });
        ${LOAD}
        process.exit(3);
      `);
      expect(exitCode).toBe(3);
    });

    test('is gone after process.exit(), its workers too', async () => {
      const { exitCode } = await run(`
        const device = await createDevice({ target: workers(2), queues: 2 });
        ${LOAD}
        process.exit(3);
      `);
      expect(exitCode).toBe(3);
    });

    test('is gone after an uncaught exception', async () => {
      const { exitCode, stderr } = await run(`
        const device = await createDevice({ target: handler });
        ${LOAD}
        setTimeout(() => { throw new Error('on purpose'); });
      `);
      expect(exitCode).toBe(1);
      expect(stderr).toContain('on purpose');
    });

    test('is gone when its thread is terminated', async () => {
      const { exitCode, stdout } = await run(`
        const program = \`
          const { parentPort } = require('node:worker_threads');
          const { createDevice } = require(${JSON.stringify(PACKAGE)});
          const target = { size: '4MiB', read: ({ data }) => void data, write: async ({ data }) => void data };
          createDevice({ target }).then(({ path }) => parentPort.postMessage({ path }));
        \`;
        for (let round = 0; round < 3; round += 1) {
          const worker = new Worker(program, { eval: true, execArgv: [] });
          const [device] = await once(worker, 'message');
          ${LOAD}
          await worker.terminate();
        }
        console.log((await listDevices()).length);
      `);
      expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: '0' });
    });
  });
});
