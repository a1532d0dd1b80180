import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';

import { createDevice, recoverDevice, stopDevice, targets } from '../../src/index.ts';
import { notifySocket } from '../notify-socket.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { expectNoDevices, isTestMachine, need, withUblk } from './machine.ts';
import { startServerIn, ublk } from './server.ts';

const RULES = '/etc/udev/rules.d/96-ublk-names.rules';
const soon = { timeout: 60_000, interval: 100 };
const slow = { timeout: 300_000 };

/** Writes a partition table (MBR) with one partition of 4 MiB. */
function partition(path: string): void {
  const table = Buffer.alloc(512);
  table[446 + 4] = 0x83;
  table.writeUInt32LE(2048, 446 + 8);
  table.writeUInt32LE(8192, 446 + 12);
  table.writeUInt16LE(0xaa55, 510);
  const file = openSync(path, 'r+');
  writeSync(file, table, 0, table.length, 0);
  closeSync(file);
}

function nameLinks(): Record<string, string> {
  const folder = '/dev/ublk/by-name';
  if (!existsSync(folder)) return {};
  return Object.fromEntries(
    readdirSync(folder).map((name) => [name, readlinkSync(join(folder, name))]),
  );
}

const expectLinks = (links: object): Promise<void> =>
  vi.waitFor(() => expect(nameLinks()).toEqual(links), soon);

withUblk('the name of a disk', () => {
  describe.runIf(isTestMachine)('with the rules of this package', () => {
    beforeAll(async () => {
      writeFileSync(RULES, (await ublk('udev-rules', '--names')).stdout);
      await execa('udevadm', ['control', '--reload']);
    });
    afterAll(() => rmSync(RULES));
    afterEach(expectNoDevices);

    test('leads to the disk and its partitions until the disk is gone', slow, async () => {
      const path = sparseImage(8 << 20);
      partition(path);
      const device = await createDevice({ target: targets.file(path), name: 'data.1', id: 5 });
      await expectLinks({ 'data.1': '../../ublkb5', 'data.1-part1': '../../ublkb5p1' });
      await execa('udevadm', ['trigger', '--settle', '--name-match=ublkb5']);
      expect(Object.keys(nameLinks())).toEqual(['data.1', 'data.1-part1']);
      await execa('udevadm', ['settle']);
      await device.close();
      await expectLinks({});
      await vi.waitFor(() => expect(readdirSync('/run/ublk-names')).toEqual([]), soon);

      // The next disk with this number has no name.
      await using _next = await createDevice({ target: targets.file(path), id: 5 });
      await execa('udevadm', ['settle']);
      expect(nameLinks()).toEqual({});
    });

    test('stays while the disk waits for its next server', slow, async (context) => {
      await need(context, 'USER_RECOVERY_REISSUE', 'QUIESCE');
      const target = targets.file(sparseImage(8 << 20));
      const device = await createDevice({ target, name: 'data', recovery: 'reissue' });
      const links = { data: `../../ublkb${device.id}` };
      await expectLinks(links);
      await device.quiesce();
      await using _next = await recoverDevice(device.id);
      await execa('udevadm', ['settle']);
      expect(nameLinks()).toEqual(links);
    });
  });

  test('a service manager hears when a service is ready, lives, and stops', slow, async () => {
    const address = join(temporaryFolder(), 'notify');
    using manager = await notifySocket(address);
    const path = join(temporaryFolder(), 'ublk.json');
    const target = { kind: 'null', size: '1MiB' };
    writeFileSync(path, JSON.stringify({ devices: { data: { id: 5, target } } }));
    const env = { NOTIFY_SOCKET: address, WATCHDOG_USEC: '2000000' };
    const { server } = await startServerIn(env, 'serve', path, '--no-control');
    const heard = async (wanted: string): Promise<string> => {
      for (;;) {
        const message = await manager.heard();
        if (message.startsWith(wanted)) return message;
      }
    };
    expect(await heard('READY')).toBe('READY=1\nSTATUS=1 device served');
    for (let beat = 0; beat < 3; beat += 1) await heard('WATCHDOG=1');
    server.kill('SIGHUP');
    expect(await heard('RELOADING')).toMatch(/^RELOADING=1\nMONOTONIC_USEC=\d+$/);
    await heard('READY=1');
    server.kill('SIGTERM');
    expect(await heard('STOPPING')).toBe('STOPPING=1\nSTATUS=ending, 1 device served');
    await server;
    await expectNoDevices();
    await expect(stopDevice(5)).rejects.toMatchObject({ code: 'ERR_UBLK_NO_DEVICE' });
  });
});
