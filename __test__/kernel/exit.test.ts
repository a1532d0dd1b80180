import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import { expectNoDevices, withUblk } from './machine.ts';

const PACKAGE = fileURLToPath(new URL('../../dist/index.js', import.meta.url));

/** Runs a program that has `createDevice`, `listDevices`, a null `target` and `Worker`. */
function run(program: string) {
  const imports = `
    import { once } from 'node:events';
    import { Worker } from 'node:worker_threads';
    import { createDevice, listDevices, targets } from ${JSON.stringify(PACKAGE)};
    const target = targets.null({ size: '1MiB' });
  `;
  return execa('node', ['--input-type=module', '--eval', imports + program], { reject: false });
}

withUblk('a device that is still open', () => {
  afterEach(expectNoDevices);

  test('is gone after process.exit()', async () => {
    const { exitCode } = await run('await createDevice({ target }); process.exit(3);');
    expect(exitCode).toBe(3);
  });

  test('is gone after process.exit() while it was being created', async () => {
    const { exitCode } = await run(
      'void createDevice({ target }); setTimeout(() => process.exit(3), 20);',
    );
    expect(exitCode).toBe(3);
  });

  test('is gone after an uncaught exception', async () => {
    const { exitCode, stderr } = await run(
      "await createDevice({ target }); setTimeout(() => { throw new Error('on purpose'); });",
    );
    expect(exitCode).toBe(1);
    expect(stderr).toContain('on purpose');
  });

  test('keeps the process alive, unless it is told not to', async () => {
    const { exitCode, stdout } = await run(`
      const first = await createDevice({ target });
      setTimeout(async () => {
        console.log('alive');
        await first.close();
        (await createDevice({ target })).unref();
      }, 500);
    `);
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: 'alive' });
  });

  test('is gone when its worker is terminated', async () => {
    const { exitCode, stdout } = await run(`
      const program = \`
        const { parentPort } = require('node:worker_threads');
        const { createDevice, targets } = require(${JSON.stringify(PACKAGE)});
        createDevice({ target: targets.null({ size: '1MiB' }) })
          .then(() => parentPort.postMessage('ready'));
      \`;
      const worker = new Worker(program, { eval: true, execArgv: [] });
      await once(worker, 'message');
      const before = (await listDevices()).length;
      await worker.terminate();
      console.log(before, (await listDevices()).length);
    `);
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: '1 0' });
  });
});
