import { describe, expect, test } from 'vitest';

import type { Finding } from '../../../src/cli/doctor/finding.ts';
import { examine, verdict } from '../../../src/cli/doctor/index.ts';
import type { System } from '../../../src/cli/doctor/system.ts';
import { UblkError } from '../../../src/errors.ts';

const all = [
  { name: 'SUPPORT_ZERO_COPY', since: '6.15', supported: true },
  { name: 'AUTO_BUF_REG', since: '6.16', supported: true },
];

const healthy: System = {
  platform: 'linux',
  release: '7.3.4-cloud-amd64',
  isRoot: true,
  exists: () => true,
  read: (path) => (path.endsWith('limits') ? 'Max locked memory  8388608  8388608  bytes' : '0\n'),
  mayOpen: () => true,
  features: async () => all,
};

async function find(name: string, changes: Partial<System>): Promise<Finding | undefined> {
  return (await examine({ ...healthy, ...changes })).find((one) => one.name === name);
}

describe('doctor', () => {
  test('has nothing to say against a machine that has everything', async () => {
    const findings = await examine(healthy);
    expect(findings.map((one) => one.status)).toEqual(findings.map(() => 'ok'));
    expect(findings.length).toBeGreaterThan(6);
  });

  test('off Linux says only that', async () => {
    const findings = await examine({ ...healthy, platform: 'darwin' });
    expect(findings).toEqual([expect.objectContaining({ name: 'platform', status: 'fail' })]);
  });

  test.each([
    ['6.17.0-1007-aws', 'fail'],
    ['6.18.4', 'fail'],
    ['6.18.4-zabbly+', 'fail'],
    ['6.18.41', 'ok'],
    ['6.18.40', 'warn'],
    ['6.17.0', 'warn'],
    ['7.0.14-arch1', 'warn'],
    ['7.3.4-cloud-amd64', 'ok'],
  ])('knows kernel %s: %s', async (release, status) => {
    expect(await find('kernel', { release })).toMatchObject({ status });
  });

  test('finds a module that is installed but not loaded', async () => {
    const read = () => 'kernel/drivers/block/ublk_drv.ko.xz: \n';
    expect(await find('driver', { exists: () => false, read })).toMatchObject({
      status: 'fail',
      fix: 'sudo modprobe ublk_drv',
    });
  });

  test('finds a kernel without the module', async () => {
    expect(await find('driver', { exists: () => false, read: () => undefined })).toMatchObject({
      status: 'fail',
      fix: expect.stringContaining('linux-modules-extra-7.3.4') as string,
    });
  });

  test('finds a user who may not', async () => {
    expect(await find('permission', { mayOpen: () => false })).toMatchObject({
      status: 'fail',
      fix: 'run it with sudo',
    });
  });

  test.each([
    ['0', false, 'ok'],
    ['1', true, 'ok'],
    ['1', false, 'fail'],
    ['2', true, 'fail'],
  ])('io_uring_disabled %s, root %s: %s', async (value, isRoot, status) => {
    expect(await find('io_uring', { isRoot, read: () => value })).toMatchObject({ status });
  });

  test.each([
    ['65536', 'warn'],
    ['8388608', 'ok'],
    ['unlimited', 'ok'],
  ])('a limit of %s on locked memory: %s', async (limit, status) => {
    const read = (path: string) =>
      path.endsWith('limits') ? `Max locked memory         ${limit}    ${limit}   bytes` : '0';
    expect(await find('memlock', { isRoot: false, read })).toMatchObject({ status });
  });

  test('misses udev', async () => {
    const exists = (path: string) => path !== '/run/udev/control';
    expect(await find('udev', { exists })).toMatchObject({ status: 'warn' });
  });

  test.each([
    [['AUTO_BUF_REG', 'SUPPORT_ZERO_COPY'], '6.16.1', 'ok', /^auto/],
    [['SUPPORT_ZERO_COPY'], '6.15.0-rc1', 'ok', /^register/],
    [['SUPPORT_ZERO_COPY'], '6.12.107', 'warn', /^copy/],
    [[], '6.8.0', 'warn', /^copy/],
  ])('with %o on Linux %s foresees the buffer mode', async (names, release, status, detail) => {
    const offered = all.map(({ name, since }) => {
      return { name, since, supported: names.includes(name) };
    });
    expect(await find('buffers', { release, features: async () => offered })).toMatchObject({
      status,
      detail: expect.stringMatching(detail) as string,
    });
  });

  test('says why the features cannot be asked', async () => {
    const hint = 'npm run build:native';
    const error = new UblkError('ERR_UBLK_NO_ADDON', 'no addon', { hint });
    expect(await find('features', { features: async () => error })).toEqual({
      name: 'features',
      status: 'fail',
      detail: 'no addon',
      fix: hint,
    });
  });

  const without = (...gone: string[]): Partial<System> => ({
    exists: (path) => !gone.some((one) => path.startsWith(one)),
    mayOpen: () => false,
    read: () => undefined,
    features: async () =>
      new UblkError('ERR_UBLK_NO_DRIVER', 'no driver', { hint: 'modprobe ublk_drv' }),
  });

  test('without the driver asks nothing that only the driver tells: one cause, one step', async () => {
    const findings = await examine({ ...healthy, ...without('/dev/ublk', '/sys/module/ublk') });
    const failed = findings.filter((one) => one.status === 'fail');
    expect(failed.map((one) => one.name)).toEqual(['driver']);
    expect(findings.filter((one) => one.fix?.includes('modprobe'))).toEqual([]);
    expect(verdict(findings)).toBe('this machine cannot serve devices: see driver');
  });

  test('in a container without the node does not ask for the module, which is loaded', async () => {
    const findings = await examine({ ...healthy, ...without('/dev/ublk') });
    const failed = findings.filter((one) => one.status === 'fail');
    expect(failed).toEqual([
      expect.objectContaining({
        name: 'permission',
        fix: expect.stringContaining('--device') as string,
      }),
    ]);
  });

  test.each([
    [{}, 'this machine can serve devices'],
    [{ release: '6.17.0' }, 'this machine can serve devices, but see kernel'],
    [{ release: '6.18.4' }, 'this machine cannot serve devices: see kernel'],
    [{ platform: 'darwin' }, 'this machine cannot serve devices: see platform'],
  ])('ends with one line: %o', async (changes, line) => {
    expect(verdict(await examine({ ...healthy, ...changes }))).toBe(line);
  });
});
