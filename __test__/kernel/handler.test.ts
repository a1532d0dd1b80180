import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { afterEach, describe, expect, test, vi } from 'vitest';

import {
  createDevice,
  handler,
  IoError,
  targets,
  type Device,
  type DeviceOptions,
  type Handler,
  type UblkError,
} from '../../src/index.ts';
import { fioVerify } from './fio.ts';
import { sparseImages } from './image.ts';
import { createOrSkip, expectNoDevices, withUblk } from './machine.ts';
import { isBrief } from './modes.ts';

const run = promisify(execFile);
/** Briefly, one mode with zero copy and the mode without. */
const BUFFERS = (['auto', 'register', 'copy'] as const).filter(
  (mode) => !isBrief || mode !== 'register',
);
const MIB = 1024 * 1024;
const SIZE = 32 * MIB;

/** A disk in memory, plain. */
function memoryDisk(): Handler {
  const disk = Buffer.alloc(SIZE);
  return {
    size: SIZE,
    read: ({ data, offset }) => void disk.copy(data, 0, offset),
    write: ({ data, offset }) => void data.copy(disk, offset),
    flush() {},
    discard() {},
    writeZeroes: ({ offset, length }) => void disk.fill(0, offset, offset + length),
  };
}

/** The same, each answer late by up to `ms`. */
function slow(disk: Handler, ms: number): Handler {
  return {
    ...disk,
    async read(request) {
      await sleep(Math.random() * ms);
      return disk.read!(request);
    },
    async write(request) {
      if (request.offset % 8192 === 0) await sleep(Math.random() * ms);
      else await Promise.resolve();
      return disk.write!(request);
    },
  };
}

/** Reads a block with an error that says what the kernel said. */
function readBlock(device: Device, block = 0): Promise<unknown> {
  const from = [`if=${device.path}`, 'of=/dev/null', 'bs=4096', `skip=${block}`];
  return run('dd', [...from, 'count=1', 'iflag=direct']);
}

function writeBlock(device: Device, block = 0): Promise<unknown> {
  const to = ['if=/dev/zero', `of=${device.path}`, 'bs=4096', `seek=${block}`];
  return run('dd', [...to, 'count=1', 'oflag=direct', 'conv=nocreat,notrunc']);
}

function warningsOf(device: Device): UblkError[] {
  const warnings: UblkError[] = [];
  device.on('warning', (warning) => warnings.push(warning));
  return warnings;
}

withUblk('a handler', () => {
  afterEach(expectNoDevices);

  describe('keeps what fio wrote', () => {
    test.for(['per-io', 'batch'] as const)('in memory (%s)', async (exchange, context) => {
      const options: DeviceOptions = { target: memoryDisk(), queues: 2, exchange };
      await using device = await createOrSkip(context, options);
      await fioVerify(device);
      expect(device.buffers.mode).toBe('copy');
      expect(device.stats().total.errors).toBe(0);
    });

    test('of clients that ask one by one, whose answers wake nobody', async (context) => {
      await using device = await createDevice({ target: memoryDisk() });
      context.skip(device.buffers.exchange !== 'batch', 'this kernel has no batches');
      const enters = (): number => device.stats().total.enters;
      const before = enters();
      await fioVerify(device, ['--size=2M', '--bssplit=4k/100', '--iodepth=1']);
      const { reads, writes, errors } = device.stats().total;
      expect(errors).toBe(0);
      // One to hear of each request; one more if the reactor had to commit it.
      expect((enters() - before) / (reads + writes)).toBeLessThan(1.5);
    });

    test('with promises that settle at random', async () => {
      await using device = await createDevice({ target: slow(memoryDisk(), 5) });
      await fioVerify(device, ['--size=8M']);
      expect(device.stats().total.errors).toBe(0);
    });

    test.for(BUFFERS)('where its map says (%s)', async (buffers, context) => {
      const [even, odd] = sparseImages([SIZE, SIZE]).map((path) => targets.file(path));
      const backends = { even: even!, odd: odd! };
      const stripe = 64 * 1024;
      const target = handler<'even' | 'odd'>({
        size: SIZE,
        backends,
        map({ offset, length }) {
          const pieces = [];
          for (let at = 0; at < length;) {
            const place = offset + at;
            const bytes = Math.min(length - at, stripe - (place % stripe));
            const backend = (place / stripe) & 1 ? 'odd' : 'even';
            pieces.push({ backend, offset: place, length: bytes } as const);
            at += bytes;
          }
          return pieces;
        },
      });
      await using device = await createOrSkip(context, { target, buffers });
      await fioVerify(device);
      const { errors, zeroCopyBytes, copiedBytes } = device.stats().total;
      expect(errors).toBe(0);
      expect(buffers === 'copy' ? zeroCopyBytes : copiedBytes).toBe(0);
    });

    test.for(BUFFERS)('step by step, on two disks (%s)', async (buffers, context) => {
      const [left, right] = sparseImages([SIZE, SIZE]).map((path) => targets.file(path));
      const target: Handler<'left' | 'right'> = {
        size: SIZE,
        backends: { left: left!, right: right! },
        async write(request) {
          await Promise.all([
            request.write('left', request.offset),
            request.write('right', request.offset),
          ]);
        },
        async read(request) {
          await request.read('left', request.offset);
          await request.read('right', request.offset);
        },
      };
      await using device = await createOrSkip(context, { target, buffers });
      await fioVerify(device, ['--size=8M']);
      expect(device.stats().total.errors).toBe(0);
    });
  });

  test('fails requests as it says, and goes on', async () => {
    await using device = await createDevice({
      target: {
        size: '1MiB',
        read({ offset, data }) {
          if (offset === 4096) throw new Error('on purpose');
          data.fill(0);
        },
        async write({ offset, data: _data }) {
          if (offset === 4096) throw new IoError('ENOSPC');
          if (offset === 8192) throw new TypeError('on purpose');
        },
      },
    });
    const warnings = warningsOf(device);
    await expect(readBlock(device, 1)).rejects.toThrow('Input/output error');
    await expect(writeBlock(device, 1)).rejects.toThrow('No space left');
    await expect(writeBlock(device, 2)).rejects.toThrow('Input/output error');
    await readBlock(device, 2);
    await writeBlock(device, 3);
    // A slow machine complains of more.
    const failures = warnings.filter(({ code }) => code === 'ERR_UBLK_HANDLER');
    expect(failures.at(-1)!.request).toMatchObject({ op: 'write', offset: 8192 });
  });

  test('that never answers fails requests with a time-out', async () => {
    let forget = true;
    let answer!: () => void;
    const later = new Promise<void>((resolve) => (answer = resolve));
    await using device = await createDevice({
      target: {
        size: '1MiB',
        timeoutMs: 1000,
        read: ({ offset, data }) => (forget && offset === 4096 ? later : void data.fill(0)),
      },
    });
    const warnings = warningsOf(device);
    await expect(readBlock(device, 1)).rejects.toThrow('timed out');
    // It may come after the answer, and beside a complaint of a slow machine.
    const code = 'ERR_UBLK_REQUEST_TIMEOUT';
    await vi.waitFor(() => expect(warnings).toContainEqual(expect.objectContaining({ code })), {
      timeout: 30_000,
    });
    forget = false;
    await readBlock(device, 1);
    answer();
    await readBlock(device, 1);
    expect(device.stats().total.errors).toBeGreaterThan(0);
  });

  test('whose event loop is blocked is told of, and serves on', async () => {
    const device = await createDevice({ target: memoryDisk() });
    const reading = readBlock(device, 1);
    const warned = once(device, 'warning') as Promise<[UblkError]>;
    await sleep(0);
    // Until the read is there and the watchdog has looked several times.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
    await reading;
    expect((await warned)[0].code).toBe('ERR_UBLK_BLOCKED');
    await device.close();
  });

  test('that gives its memory away, where JavaScript lets it, serves on', async () => {
    let give = true;
    let isGone = false;
    await using device = await createDevice({
      target: {
        ...memoryDisk(),
        read({ data, offset }) {
          if (!give || offset !== 4096) return;
          structuredClone(data, { transfer: [data.buffer] });
          isGone = data.length === 0;
        },
      },
    });
    const reads = await readBlock(device, 1).then(
      () => true,
      () => false,
    );
    expect(reads && isGone).toBe(false);
    give = false;
    for (let block = 0; block < 8; block += 1) await readBlock(device, 1);
  });

  test('with requests in flight can be closed, and created again', async () => {
    for (let cycle = 0; cycle < 3; cycle += 1) {
      const device = await createDevice({ target: slow(memoryDisk(), 50), queues: 2 });
      const load = fioVerify(device).then(
        () => 'ended',
        () => 'failed',
      );
      await sleep(Math.random() * 1500);
      await device.close();
      expect(await load).toMatch(/ended|failed/);
    }
  });

  test('that answers when its device is closed harms nobody', async () => {
    let answer!: () => void;
    const later = new Promise<void>((resolve) => (answer = resolve));
    let asked!: () => void;
    const isAsked = new Promise<void>((resolve) => (asked = resolve));
    const device = await createDevice({
      target: {
        size: '1MiB',
        timeoutMs: 1000,
        async read({ data, offset }) {
          if (offset !== 4096) return void data.fill(0);
          asked();
          await later;
          data.fill(9);
        },
      },
    });
    const reading = readBlock(device, 1).catch((error: unknown) => error);
    await isAsked;
    await device.close();
    expect(String(await reading)).toMatch(/timed out|error/);
    answer();
    await sleep(10);
    await using next = await createDevice({ target: memoryDisk() });
    await readBlock(next, 1);
  });

  test('that never answers can be closed', async () => {
    let asked!: () => void;
    const isAsked = new Promise<void>((resolve) => (asked = resolve));
    const device = await createDevice({
      target: {
        size: '1MiB',
        timeoutMs: 2000,
        read({ offset, data }) {
          if (offset !== 4096) return void data.fill(0);
          asked();
          return new Promise(() => {});
        },
      },
    });
    const reading = readBlock(device, 1).catch((error: unknown) => error);
    await isAsked;
    await device.close();
    expect(String(await reading)).toMatch(/timed out|error/);
  });
});
