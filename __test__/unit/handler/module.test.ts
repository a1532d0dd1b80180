import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { handlerModule } from '../../../src/index.ts';
import type * as Pools from '../../../src/handler/pool.ts';
import type * as Testing from '../../../src/testing/index.ts';

// Threads do not run TypeScript: what is tested with them is what has been built.
const BUILT = new URL('../../../dist/testing/index.js', import.meta.url);
const built = () => import(BUILT.href) as Promise<typeof Testing>;

describe('The options of handlerModule()', () => {
  test('are taken as they are, the module by its URL or its path', () => {
    const data = { any: 'thing' };
    const expected = { kind: 'module', url: 'file:///srv/disk.js', workers: 2, data };
    expect(handlerModule('/srv/disk.js', { workers: 2, data })).toEqual(expected);
    expect(handlerModule(new URL('file:///srv/disk.js'), { workers: 2, data })).toEqual(expected);
    expect(handlerModule('data:text/javascript,').url).toBe('data:text/javascript,');
    expect(handlerModule('/srv/disk.js').workers).toBe(1);
  });

  test.each([
    ['./disk.js', {}, 'the module is ./disk.js; it must be a URL or an absolute path'],
    [3, {}, 'the module is 3; it must be a URL or an absolute path'],
    ['/a.js', { workers: 0 }, 'workers is 0; it must be a whole number from 1 to 256'],
    ['/a.js', { worker: 2 }, "handlerModule() has no 'worker'"],
  ])('%j, %j are refused', (module, options, message) => {
    expect(() => handlerModule(module as never, options as never)).toThrow(
      expect.objectContaining({ code: 'ERR_UBLK_INVALID_ARGUMENT', message }),
    );
  });
});

describe.runIf(existsSync(BUILT))("A handler's module", () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ublk-module-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function module(text: string): URL {
    const path = join(folder, 'disk.mjs');
    writeFileSync(path, text);
    return pathToFileURL(path);
  }

  test('gives up the state of each worker, and takes it in the same order', async () => {
    const url = module(`
      import { threadId } from 'node:worker_threads';
      let state = threadId;
      export default {
        size: 4096,
        read() {},
        suspend: async () => state,
        resume: (last) => {
          if (last === 'wrong') throw new Error('this is no state of mine');
          state = last + 1000;
        },
      };
    `);
    const listener = { warn: () => {}, lost: () => {} };
    const pools = new URL('../../../dist/handler/pool.js', import.meta.url);
    const { WorkerPool } = (await import(pools.href)) as typeof Pools;
    const { pool, shape } = await WorkerPool.start(handlerModule(url, { workers: 2 }), listener);
    try {
      expect(shape.keepsState).toBe(true);
      const states = (await pool.suspend()) as number[];
      expect(new Set(states).size).toBe(2);
      await pool.resume(states);
      expect(await pool.suspend()).toEqual(states.map((state) => state + 1000));
      const message = "the handler's resume() fails: this is no state of mine";
      const code = 'ERR_UBLK_HANDLER';
      await expect(pool.resume([1, 'wrong'])).rejects.toMatchObject({ code, message });
    } finally {
      await pool.release();
    }
  });

  test('that exports a function is given the data, in each worker', async () => {
    const url = module(`
      export default (memory) => {
        const disk = Buffer.from(memory);
        return {
          size: disk.length,
          read: ({ data, offset }) => void disk.copy(data, 0, offset),
          write: async ({ data, offset }) => void data.copy(disk, offset),
        };
      };
    `);
    const data = new SharedArrayBuffer(1 << 20);
    const { simulate } = await built();
    await using disk = await simulate(handlerModule(url, { workers: 2, data }));
    expect(disk.device.queues).toBe(2);
    for (let block = 0; block < 16; block += 1) {
      await disk.write(block * 4096, Buffer.alloc(4096, block + 1));
    }
    const all = await disk.read(0, 16 * 4096);
    expect(all.filter((_, at) => at % 4096 === 0)).toEqual(
      Buffer.from(Array.from({ length: 16 }, (_, block) => block + 1)),
    );
    expect(Buffer.from(data).subarray(0, all.length).equals(all)).toBe(true);
  });

  test('that is given what no thread can have is refused', async () => {
    const { simulate } = await built();
    const target = handlerModule(module('export default {};'), { data: () => {} });
    await expect(simulate(target)).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringContaining('the data of handlerModule() cannot go to a worker'),
    });
  });

  test.each([
    ['export default 5;', 'ERR_UBLK_INVALID_ARGUMENT', 'the handler has no methods'],
    ['export const a = 1;', 'ERR_UBLK_INVALID_ARGUMENT', 'the handler has no methods'],
    ['throw new Error("on purpose");', 'ERR_UBLK_HANDLER', 'on purpose'],
    ['export default () => { throw new Error("on purpose"); };', 'ERR_UBLK_HANDLER', 'on purpose'],
    ['process.exit(3);', 'ERR_UBLK_HANDLER', 'a worker of the handler has ended'],
  ])('that is %j is refused', async (text, code, message) => {
    const { simulate } = await built();
    await expect(simulate(handlerModule(module(text)))).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });
});
