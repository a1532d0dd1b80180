import { open } from 'node:fs/promises';

import { execa } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';

import {
  createDevice,
  metrics,
  recoverDevice,
  targets,
  type Device,
  type Stalled,
} from '../../src/index.ts';
import { createOrSkip, expectNoDevices, need, withUblk } from './machine.ts';
import { modesOf } from './modes.ts';
import { startServer, ublk } from './server.ts';

const MIB = 1 << 20;
const soon = { timeout: 30_000, interval: 50 };
const WATCHDOG = { afterMs: 500 } as const;
/** Not read by the kernel's scan for partitions, which may run late, and during which nobody can open the disk. */
const AWAY = 262_144;

/** A disk below the tested device: it answers no read while it is stuck. */
async function disk() {
  let free = (): void => {};
  let waits: Promise<void> | undefined;
  const lower = await createDevice({
    target: {
      size: MIB,
      read: async ({ data }) => (await waits, void data.fill(7)),
      write: ({ data }) => void data,
    },
  });
  return {
    lower,
    stick: () => (waits = new Promise((resolve) => (free = resolve))),
    free: () => ((waits = undefined), free()),
  };
}

/** The stalls of a device, as they are reported. */
function stallsOf(device: Device): Stalled[] {
  const heard: Stalled[] = [];
  device.on('stalled', (stalled) => void heard.push(stalled));
  return heard;
}

/** Reads a block past the page cache. */
async function readBlock(path: string, offset = 0): Promise<number> {
  const O_DIRECT = 0o40000;
  await using file = await open(path, O_DIRECT);
  // Memory of a page or more begins at a page.
  const bytes = Buffer.from(new ArrayBuffer(1 << 20), 0, 4096);
  await file.read(bytes, 0, 4096, offset);
  return bytes[0]!;
}

withUblk('the watchdog of a device', () => {
  afterEach(expectNoDevices);

  test.for(modesOf('auto', 'register', 'copy', 'user-copy'))(
    'names a request that a disk does not answer, and the disk: %j',
    async (mode, context) => {
      const { lower, stick, free } = await disk();
      await using _lower = lower;
      await using device = await createOrSkip(context, {
        target: targets.file(lower.path),
        watchdog: WATCHDOG,
        ...mode,
      });
      const heard = stallsOf(device);
      expect(await readBlock(device.path)).toBe(7);
      stick();
      const stuck = readBlock(device.path, 8192);
      await vi.waitFor(() => expect(heard).toHaveLength(1), soon);
      expect(heard[0]).toMatchObject({
        queue: 0,
        op: 'read',
        offset: 8192,
        length: 4096,
        waitsFor: 'read',
        file: lower.path,
      });
      expect(heard[0]!.ageMs).toBeGreaterThanOrEqual(500);
      free();
      expect(await stuck).toBe(7);
      expect(device.stats()).toMatchObject({ stalled: 1 });
      expect(metrics().text()).toContain(`ublk_stalls_total{device="ublkb${device.id}"} 1\n`);
    },
  );

  test('names the handler that does not answer, and the other requests go on', async () => {
    let free = (): void => {};
    let waits: Promise<void> | undefined;
    await using device = await createDevice({
      target: {
        size: MIB,
        read: async ({ data, offset }) => {
          if (offset === AWAY) await waits;
          data.fill(9);
        },
      },
      watchdog: WATCHDOG,
    });
    waits = new Promise((resolve) => (free = resolve));
    const heard = stallsOf(device);
    const stuck = readBlock(device.path, AWAY);
    await vi.waitFor(async () => {
      expect(await readBlock(device.path, 524_288)).toBe(9);
      expect(heard).toHaveLength(1);
    }, soon);
    expect(heard[0]).toMatchObject({ op: 'read', offset: AWAY, waitsFor: 'handler' });
    free();
    expect(await stuck).toBe(9);
  });

  test('leaves a device to the next server, where it is told to', async (context) => {
    await need(context, 'QUIESCE');
    const { lower, stick, free } = await disk();
    await using _lower = lower;
    const target = targets.file(lower.path);
    const device = await createOrSkip(context, {
      target,
      recovery: 'reissue',
      watchdog: { ...WATCHDOG, action: 'quiesce' },
    });
    const heard = stallsOf(device);
    stick();
    const stuck = readBlock(device.path);
    await vi.waitFor(() => expect(heard).toHaveLength(1), soon);
    const later = readBlock(device.path, 524_288);
    free();
    expect(await device.closed).toBe('quiesced');
    expect(await stuck).toBe(7);
    await using next = await recoverDevice(device.id, { target });
    expect(await later).toBe(7);
    await next.close();
  });

  test('says on stderr of ublk add what does not end', async () => {
    const add = ['add', 'delay', 'null:1MiB', '--write-us', '6000000', '--watchdog', '1'];
    const { server, path } = await startServer(...add);
    const dd = ['if=/dev/zero', `of=${path}`, 'bs=4096', 'seek=1', 'count=1', 'oflag=direct'];
    await execa('dd', dd);
    expect((await ublk('stop', '0')).exitCode).toBe(0);
    const { stderr } = await server;
    expect(stderr).toMatch(
      /\/dev\/ublkb0: write of 4096 bytes at 4096 has not ended for \d+\.\d s, and waits for a pause of the target/,
    );
  });

  test('refuses what it cannot do before anything is made', async () => {
    const { stderr } = await ublk('add', 'null', '--size', '1MiB', '--watchdog-action', 'quiesce');
    expect(stderr).toContain("watchdog.action is 'quiesce', which needs recovery");
  });
});
