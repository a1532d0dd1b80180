import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  deleteDevice,
  getDeviceInfo,
  recoverDevice,
  targets,
} from '../../src/index.ts';
import { deviceIds, expectNoDevices, need, withUblk } from './machine.ts';

const PACKAGE = fileURLToPath(new URL('../../dist/index.js', import.meta.url));

/** Runs a program that has the package, a null `target` and `Worker`. */
function run(program: string) {
  const imports = `
    import { once } from 'node:events';
    import { Worker } from 'node:worker_threads';
    import { closeOnSignals, createDevice, handlerModule, listDevices, targets } from ${JSON.stringify(PACKAGE)};
    const target = targets.null({ size: '1MiB' });
  `;
  return execa('node', ['--input-type=module', '--eval', imports + program], { reject: false });
}

/** Waits until a program has printed a line. */
async function firstLine(output: Readable): Promise<void> {
  await once(createInterface({ input: output }), 'line');
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

withUblk('a device with recovery, whose server ends', () => {
  afterEach(async () => {
    await Promise.all(deviceIds().map((id) => deleteDevice(id)));
    await expectNoDevices();
  });

  const create = "const device = await createDevice({ target, recovery: 'reissue' });";
  test.for([
    ['by process.exit()', 'process.exit(0);'],
    ['by an uncaught exception', "setTimeout(() => { throw new Error('on purpose'); });"],
    ['by an unhandled rejection', "void Promise.reject(new Error('on purpose'));"],
    ['as nothing keeps its event loop alive', 'device.unref();'],
  ])('waits for the next server (%s)', async ([, end], context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    await run(`${create} ${end}`);
    expect((await getDeviceInfo(0)).state).toBe('quiesced');
    await using device = await recoverDevice(0, { target: targets.null({ size: '1MiB' }) });
    expect(device.id).toBe(0);
  });

  test('waits for the next server when its worker is terminated', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE');
    const program = `
      const { parentPort } = require('node:worker_threads');
      const { createDevice, targets } = require(${JSON.stringify(PACKAGE)});
      createDevice({ target: targets.null({ size: '1MiB' }), recovery: 'reissue' })
        .then(() => parentPort.postMessage('ready'));
    `;
    const { stdout } = await run(`
      const worker = new Worker(${JSON.stringify(program)}, { eval: true, execArgv: [] });
      await once(worker, 'message');
      await worker.terminate();
      console.log((await listDevices()).map(({ state }) => state).join());
    `);
    expect(stdout).toBe('quiesced');
  });

  test('keeps what its handler has not answered for the next server', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const server = run(`
      const handler = { size: '1MiB', read: ({ data }) => void data.fill(0), write: () => process.exit(3) };
      await createDevice({ target: handler, recovery: 'reissue' });
      console.log('ready');
    `);
    await firstLine(server.stdout);
    const dd = ['if=/dev/urandom', 'of=/dev/ublkb0', 'bs=4k', 'count=1', 'oflag=direct'];
    const written = execa('dd', dd, { reject: false });
    expect((await server).exitCode).toBe(3);
    await using _device = await recoverDevice(0, { target: targets.null({ size: '1MiB' }) });
    expect((await written).exitCode).toBe(0);
  });

  test('is left to the next server when its handler loses a worker', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    const server = run(`
      const module = 'data:text/javascript,export default ' + encodeURIComponent(
        '{ size: 1048576, read(request) { request.data.fill(0); }, write() { process.exit(3); } }');
      const handler = handlerModule(new URL(module));
      const device = await createDevice({ target: handler, recovery: 'reissue' });
      device.on('warning', ({ message }) => console.log(message));
      console.log('ready');
      console.log(await device.closed);
    `);
    await firstLine(server.stdout);
    const dd = ['if=/dev/urandom', 'of=/dev/ublkb0', 'bs=4k', 'count=1', 'oflag=direct'];
    const written = execa('dd', dd, { reject: false });
    expect((await server).stdout).toMatch(/a worker of the handler has ended[^]*quiesced$/);
    await using _next = await recoverDevice(0, { target: targets.null({ size: '1MiB' }) });
    expect((await written).exitCode).toBe(0);
  });

  test('is removed at the end of its scope only if nobody has it open', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE', 'SAFE_STOP_DEV');
    const target = targets.null({ size: '1MiB' });
    {
      await using _unused = await createDevice({ target, recovery: 'reissue' });
    }
    expect(deviceIds()).toEqual([]);
    let opened;
    {
      await using device = await createDevice({ target, recovery: 'reissue' });
      opened = await open(device.path);
    }
    expect((await getDeviceInfo(0)).state).toBe('quiesced');
    await opened.close();
  });
});

withUblk('a program that closes its devices on signals', () => {
  afterEach(expectNoDevices);

  const handler = `
    const memory = Buffer.alloc(1 << 20);
    const handler = {
      size: memory.length,
      read: ({ offset, data }) => void data.set(memory.subarray(offset, offset + data.length)),
      write: ({ offset, data }) => new Promise((resolve) => setTimeout(() => {
        memory.set(data, offset);
        resolve();
      }, 300)),
    };
    await createDevice({ target: handler });
    await createDevice({ target });
    console.log('ready');
  `;

  test.for(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('ends of %s after them', async (signal) => {
    const server = run(`closeOnSignals(); ${handler}`);
    await firstLine(server.stdout);
    const path = deviceIds().length === 2 ? '/dev/ublkb0' : 'two devices';
    const dd = ['if=/dev/urandom', `of=${path}`, 'bs=4k', 'count=1', 'oflag=direct'];
    const written = execa('dd', dd, { reject: false });
    await vi.waitFor(() => expect(inFlight()).toBe(1));
    server.kill(signal);
    expect((await server).signal).toBe(signal);
    expect((await written).exitCode).toBe(0);
    expect(deviceIds()).toEqual([]);
  });
});

/** Requests of /dev/ublkb0 that its server has. */
function inFlight(): number {
  const [reads, writes] = readFileSync('/sys/block/ublkb0/inflight', 'utf8').trim().split(/\s+/);
  return Number(reads) + Number(writes);
}
