import { chmodSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';

import { createDevice, targets, type UblkErrorCode } from '../../src/index.ts';
import { randomImage, temporaryFolder } from './image.ts';
import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const hint = expect.any(String) as string;

/** A user without rights, who can still read this checkout, wherever root has put it. */
const AS_NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'].concat(
  ['inh', 'ambient'].map((set) => `--${set}-caps=+dac_read_search`),
);

function ublk(args: string[], by: string[] = []) {
  const [program = '', ...rest] = [...by, process.execPath, CLI, ...args];
  return execa(program, rest, { reject: false });
}

/** The command fails with one clear message. */
async function expectFailure(args: string[], code: UblkErrorCode, by?: string[]): Promise<void> {
  const { exitCode, stdout, stderr } = await ublk(args, by);
  expect(stderr).toMatch(new RegExp(`^error: .+ \\(${code}\\)(\nhint: .+)?$`));
  expect(exitCode).toBeGreaterThan(0);
  expect(stdout).toBe('');
}

withUblk('bad input', () => {
  afterEach(expectNoDevices);

  test('a missing image', async () => {
    const target = targets.file(join(temporaryFolder(), 'no.img'));
    const failure = { code: 'ERR_UBLK_NO_BACKEND', errno: 2, syscall: 'stat', hint };
    await expect(createDevice({ target })).rejects.toMatchObject(failure);
  });

  test('a directory', async () => {
    const target = targets.file(temporaryFolder());
    await expect(createDevice({ target })).rejects.toMatchObject({
      code: 'ERR_UBLK_BAD_BACKEND',
      message: expect.stringContaining('directory') as string,
      hint,
    });
  });

  test('a character device', async () => {
    const failure = { code: 'ERR_UBLK_BAD_BACKEND', hint };
    await expect(createDevice({ target: targets.file('/dev/zero') })).rejects.toMatchObject(
      failure,
    );
  });

  test('an empty image', async () => {
    const path = join(temporaryFolder(), 'empty.img');
    writeFileSync(path, '');
    const failure = { code: 'ERR_UBLK_BAD_BACKEND', hint };
    await expect(createDevice({ target: targets.file(path) })).rejects.toMatchObject(failure);
  });

  test('an image whose size is no multiple of the block size', async () => {
    const { path } = randomImage(4096);
    truncateSync(path, 4000);
    const failure = { code: 'ERR_UBLK_BAD_BACKEND', hint };
    await expect(createDevice({ target: targets.file(path) })).rejects.toMatchObject(failure);
  });

  test('a size that is no multiple of the block size', async () => {
    const failure = { code: 'ERR_UBLK_INVALID_ARGUMENT' };
    const target = targets.null({ size: 1000 });
    await expect(createDevice({ target })).rejects.toMatchObject(failure);
  });

  test('a size larger than the image', async () => {
    const { path } = randomImage(4096);
    const failure = { code: 'ERR_UBLK_INVALID_ARGUMENT', hint };
    const target = targets.file(path, { size: 8192 });
    await expect(createDevice({ target })).rejects.toMatchObject(failure);
  });

  test('an image that is being served already', async () => {
    const target = targets.file(randomImage(4096).path);
    await using _first = await createDevice({ target });
    const failure = { code: 'ERR_UBLK_BUSY', hint };
    await expect(createDevice({ target })).rejects.toMatchObject(failure);
    await using _unlocked = await createDevice({ target: { ...target, lock: false } });
  });

  test('an id in use', async () => {
    const target = targets.null({ size: '1MiB' });
    await using device = await createDevice({ target });
    const failure = { code: 'ERR_UBLK_DEVICE_EXISTS', hint };
    await expect(createDevice({ target, id: device.id })).rejects.toMatchObject(failure);
  });

  describe('of the command', () => {
    // Together: a program takes its time to start.
    test('what is not there and what cannot be', async () => {
      const missing = expectFailure(['add', 'file', '/no/such.img'], 'ERR_UBLK_NO_BACKEND');
      const depths = ['0', '5000'].map((depth) => {
        const args = ['add', 'null', '--size', '1MiB', '--depth', depth];
        return expectFailure(args, 'ERR_UBLK_INVALID_ARGUMENT');
      });
      const verbs = ['info', 'stop', 'delete'].map((command) =>
        expectFailure([command, '77'], 'ERR_UBLK_NO_DEVICE'),
      );
      await Promise.all([missing, ...depths, ...verbs]);
    });

    test('a pid file that cannot be written; the device goes again', async () => {
      const args = ['add', 'null', '--size', '1MiB', '--pid-file', '/no/such/folder/pid'];
      await expectFailure(args, 'ERR_UBLK_INVALID_ARGUMENT');
    });

    test('a user who may not', async () => {
      const args = ['add', 'null', '--size', '1MiB'];
      await expectFailure(args, 'ERR_UBLK_PERMISSION', AS_NOBODY);
    });

    test('an image that this user may not write', async () => {
      const { path } = randomImage(4096);
      chmodSync(path, 0o444);
      chmodSync(join(path, '..'), 0o755);
      await expectFailure(['add', 'file', path], 'ERR_UBLK_PERMISSION', AS_NOBODY);
    });
  });

  describe.runIf(isTestMachine)('of the machine', () => {
    test('a kernel without ublk', async () => {
      await execa('rmmod', ['ublk_drv']);
      try {
        await expectFailure(['list'], 'ERR_UBLK_NO_DRIVER');
        await expectFailure(['add', 'null', '--size', '1MiB'], 'ERR_UBLK_NO_DRIVER');
        const { exitCode, stdout } = await ublk(['doctor']);
        expect(exitCode).toBe(1);
        expect(stdout).toContain('-> sudo modprobe ublk_drv');
      } finally {
        await execa('modprobe', ['ublk_drv']);
      }
    });

    test('io_uring disabled by sysctl', async () => {
      const file = '/proc/sys/kernel/io_uring_disabled';
      writeFileSync(file, '2');
      try {
        await expectFailure(['add', 'null', '--size', '1MiB'], 'ERR_UBLK_NO_IO_URING');
        const { exitCode, stdout } = await ublk(['doctor']);
        expect(exitCode).toBe(1);
        expect(stdout).toContain('-> sudo sysctl kernel.io_uring_disabled=0');
      } finally {
        writeFileSync(file, '0');
      }
    });
  });
});
