import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, onTestFinished, test } from 'vitest';

import { expectBytes, readBytes, writeBytes } from './bytes.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { startServerIn } from './server.ts';

const SHIM = fileURLToPath(new URL('short-enter.c', import.meta.url));
const MIB = 1024 * 1024;
const BLOCK = 4096;
/** Written and read one after another, so that most submissions are a step and its commit. */
const BLOCKS = 30;

const block = (index: number): Buffer => Buffer.alloc(BLOCK, index + 1);

withUblk('a submission that the kernel takes in part', () => {
  afterEach(expectNoDevices);

  test.for(['per-io', 'batch'])('loses and makes up nothing (%s)', async (exchange) => {
    const folder = temporaryFolder();
    const [shim, whileThere] = [join(folder, 'shim.so'), join(folder, 'while')];
    await execa('gcc', ['-shared', '-fPIC', '-O2', '-o', shim, SHIM]);
    const image = sparseImage(MIB, folder);
    const how = ['--exchange', exchange, '--buffers', 'auto', '--queues', '1', '--no-direct'];
    const env = { LD_PRELOAD: shim, SHORT_WHILE: whileThere };
    const { server, path } = await startServerIn(env, 'add', 'file', image, ...how);
    onTestFinished(() => void server.kill('SIGKILL'));
    writeFileSync(whileThere, '');
    for (let index = 0; index < BLOCKS; index += 1) {
      await writeBytes({ path }, index * BLOCK, block(index));
      expectBytes(await readBytes({ path }, index * BLOCK, BLOCK), block(index));
    }
    server.kill('SIGTERM');
    const { exitCode, stderr } = await server;
    expect(exitCode).toBe(0);
    expect(Number(/short enters: (\d+)/.exec(stderr)?.[1])).toBeGreaterThanOrEqual(2 * BLOCKS);
    const stored = readFileSync(image);
    for (let index = 0; index < BLOCKS; index += 1) {
      expect(block(index).equals(stored.subarray(index * BLOCK, (index + 1) * BLOCK))).toBe(true);
    }
  });
});
