import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { runCli } from '../../../src/cli/run.ts';
import { native } from '../../../src/native.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const binding = {
  listDevices: vi.fn<() => unknown>(),
  stopDevice: vi.fn<() => unknown>(),
  createDevice: vi.fn<(options: unknown) => unknown>(),
  recoverDevice: vi.fn<() => unknown>(),
  deviceInfo: vi.fn<() => unknown>(),
  setDeviceAffinity: vi.fn<() => unknown>(),
  deleteDevice: vi.fn<() => unknown>(),
  features: vi.fn<() => unknown>(),
  deviceUsers: vi.fn<() => unknown>(),
};
let stdout = '';
let stderr = '';

beforeEach(() => {
  vi.mocked(native).mockReset();
  vi.mocked(native).mockReturnValue(binding as never);
  stdout = '';
  stderr = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((stdout += String(text)), true));
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => ((stderr += String(text)), true));
});

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

const device = {
  id: 0,
  path: '/dev/ublkb0',
  state: 'live',
  queues: 2,
  depth: 128,
  maxIoBytes: 1 << 20,
  size: 1 << 30,
  readOnly: false,
  ownerUid: 0,
  features: [],
};

const mounted = {
  found: [{ kind: 'mount', name: '/mnt' }],
  complete: true,
  text: 'mounted on /mnt',
};

describe('ublk', () => {
  test.each([
    ['add file'],
    ['add null'],
    ['add striped'],
    ['add linear'],
    ['add delay'],
    ['add error'],
    ['add zoned'],
    ['add nbd'],
    ['add qcow2'],
    ['add rbd'],
    ['add http'],
    ['add overlay'],
    ['overlay create'],
    ['overlay snapshot'],
    ['overlay fork'],
    ['overlay info'],
    ['overlay export'],
    ['overlay flatten'],
    ['overlay commit'],
    ['overlay rebase'],
    ['overlay diff'],
    ['overlay apply'],
    ['overlay tree'],
    ['overlay check'],
    ['list'],
    ['info'],
    ['stop'],
    ['delete'],
    ['recover'],
    ['prune'],
    ['serve'],
    ['upgrade'],
    ['service status'],
    ['service reload'],
    ['service events'],
    ['service stop'],
    ['service resize'],
    ['service quiesce'],
    ['quiesce'],
    ['resize'],
    ['set-affinity'],
    ['features'],
    ['doctor'],
  ])('%s --help has an example, and needs no addon', async (command) => {
    expect(await runCli([...command.split(' '), '--help'])).toBe(0);
    expect(stdout).toMatch(new RegExp(`\\nExamples?:\\n  \\$ ublk ${command}`));
    expect(stdout).toContain('--json');
    expect(native).not.toHaveBeenCalled();
  });

  test('--version is the one of the package', async () => {
    expect(await runCli(['--version'])).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+/);
  });

  test.each([
    [['lsit'], /unknown command 'lsit'/],
    [['stop'], /missing required argument 'id'/],
    [['stop', 'x'], /must be a whole number/],
    [['delete'], /number of a device is missing/],
    [['recover'], /number of a device is missing/],
    [['recover', '--all', '0'], /exclude each other/],
    [['recover', '0', '--queues', '2'], /unknown option '--queues'/],
    [['add', 'null', '--size', '1M', '--name', '../x'], /name is "..\/x"/],
    [['serve', '/nowhere/ublk.json'], /nowhere\/ublk.json: cannot be read/],
    [['serve', 'ublk.yaml'], /is no kind of configuration/],
    [['serve', 'ublk.toml', '--stall-after', '0'], /must be 1 or more/],
    [['metrics', '--listen', 'here'], /--listen is "here"/],
    [['service', 'stop'], /missing required argument 'name'/],
    [['service', 'resize', 'data'], /missing required argument 'size'/],
    [['service', 'restart'], /unknown command 'restart'/],
    [['delete', '0', '--all'], /exclude each other/],
    [['delete', '0', 'x'], /must be a whole number/],
    [['list', '--jsno'], /Did you mean --json/],
    [['add', 'null'], /required option '--size/],
    [['add', 'null', '--size', '1GiB', '--buffers', 'best'], /Allowed choices are auto/],
    [['add', 'null', '--size', '1GiB', '--depth', '5000'], /depth is 5000/],
    [['add', 'null', '--size', '1GB'], /hint: write '1GiB'/],
    [['add', 'file', ''], /path is ""/],
    [['add', 'null', '--size', '1GiB', '--recovery', 'yes'], /Allowed choices are queue/],
    [['recover', '0', 'fiel', 'x.img'], /unknown command 'fiel'/],
    [['recover', '0', 'file', 'x.img', '--queues', '2'], /unknown option '--queues'/],
    [['set-affinity', '0', '3-1'], /numbers and ranges of CPUs/],
    [['add', 'file', 'x.img', '--tag-size', '2'], /--tag-size needs --integrity/],
    [['add', 'file', 'x.img', '--integrity', 'md5'], /Allowed choices are none/],
    [['add', 'null', '--size', '1G', '--max-segments', '0'], /maxSegments is 0/],
    [['add', 'null', '--size', '1G', '--segment-boundary', '5k'], /segmentBoundary is 5k/],
    [['add', 'zoned', '--size', '1GiB'], /required option '--zone-size/],
    [['add', 'zoned', '--zone-size', '64M'], /needs a size or a path/],
    [['add', 'striped'], /missing required argument 'target'/],
    [['add', 'striped', 'a.img', '--chunk', '5k'], /chunk is 5k; it must be a power of two/],
    [['add', 'linear', 'a.img', 'null:lots'], /size 'lots' is no size/],
    [['add', 'delay', 'a.img', '--read-us', '-1'], /must be a whole number/],
  ])('%o is a usage error', async (args, message) => {
    expect(await runCli(args)).toBe(2);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
  });

  test.each([
    [['lsit', '--json'], /^unknown command 'lsit'$/, /list/],
    [['stop', '--json'], /missing required argument 'id'/],
    [['add', 'null', '--json'], /required option '--size/],
    [['add', 'file', 'x', '--json', '--depth', 'x'], /must be a whole number/],
    [['recover', '0', 'fiel', 'x.img', '--json'], /unknown command 'fiel'/],
    [['add', '--json'], /unknown option '--json'|a command is missing/],
    [['delete', '--json'], /number of a device is missing/],
  ])('%o is a usage error in JSON', async (args, message, hint = /^/) => {
    expect(await runCli(args)).toBe(2);
    const { error } = JSON.parse(stderr) as {
      error: { code: string; message: string; hint?: string };
    };
    expect(error.code).toBe('ERR_UBLK_INVALID_ARGUMENT');
    expect(error.message).toMatch(message);
    expect(error.hint ?? '').toMatch(hint);
    expect(stdout).toBe('');
  });

  test('metrics prints what the kernel tells of each device', async () => {
    binding.listDevices.mockResolvedValue({ value: [device, { ...device, id: 3, state: 'dead' }] });
    expect(await runCli(['metrics'])).toBe(0);
    expect(stdout).toContain('\nublk_size_bytes{device="ublkb3"} 1073741824\n');
    expect(stdout).toContain('\nublk_device_state{device="ublkb3",state="dead"} 1\n');
    const failure = { code: 'ERR_UBLK_NO_DRIVER', message: 'no driver', hint: 'modprobe ublk_drv' };
    binding.listDevices.mockResolvedValue({ failure });
    expect(await runCli(['metrics'])).toBe(1);
    expect(stderr).toBe('error: no driver (ERR_UBLK_NO_DRIVER)\nhint: modprobe ublk_drv\n');
  });

  test('help has its options in groups', async () => {
    expect(await runCli(['add', 'file', '--help'])).toBe(0);
    const groups = stdout.split('\n').filter((line) => /^\S.*options:$/i.test(line));
    const titles = ['Server options:', 'Device options:', 'Metadata options:'];
    expect(groups.toSorted()).toEqual([...titles, 'Target options:'].toSorted());
    expect(stdout).toMatch(/Target options:\n +--read-only/);
  });

  test('list shows a table for people', async () => {
    binding.listDevices.mockResolvedValue({ value: [device] });
    binding.deviceUsers.mockResolvedValue({ value: mounted });
    expect(await runCli(['list'])).toBe(0);
    expect(stdout).toMatch(/ID +PATH +NAME +STATE/);
    const row = /0 +\/dev\/ublkb0 +- +live +1 GiB +2 +128 +- +unknown +mounted on \/mnt\n/;
    expect(stdout).toMatch(row);
  });

  test('list --json is one line that parses', async () => {
    binding.listDevices.mockResolvedValue({ value: [device] });
    binding.deviceUsers.mockResolvedValue({ value: mounted });
    expect(await runCli(['list', '--json'])).toBe(0);
    const more = { buffers: 'copy', exchange: 'per-io', users: mounted };
    expect(JSON.parse(stdout)).toEqual([{ ...device, ...more }]);
    expect(stdout.trim()).not.toContain('\n');
  });

  test('info says what is unknown, of a device that has gone meanwhile too', async () => {
    const features = ['SUPPORT_ZERO_COPY', 'AUTO_BUF_REG', 'BATCH_IO'];
    binding.deviceInfo.mockResolvedValue({ value: { ...device, features } });
    const failure = { code: 'ERR_UBLK_NO_DEVICE', message: 'there is no device 0' };
    binding.deviceUsers.mockResolvedValue({ failure });
    expect(await runCli(['info', '0'])).toBe(0);
    for (const name of ['serves', 'since', 'used']) {
      expect(stdout).toMatch(new RegExp(`${name} +unknown\\n`));
    }
    expect(stdout).toMatch(/buffers +auto\nexchange +batch\n/);
  });

  test.each([
    [{ found: [], complete: true, text: 'x' }, 'nobody'],
    [{ found: [], complete: false, text: 'x' }, 'nobody that this user may see'],
  ])('info says of a device without users: %o', async (users, text) => {
    binding.deviceInfo.mockResolvedValue({ value: device });
    binding.deviceUsers.mockResolvedValue({ value: users });
    expect(await runCli(['info', '0'])).toBe(0);
    expect(stdout).toMatch(new RegExp(`used +${text}\n`));
  });

  test('a failure is one message with its code and hint on stderr, and status 1', async () => {
    const failure = { code: 'ERR_UBLK_NO_DRIVER', message: 'no ublk', hint: 'modprobe ublk_drv' };
    binding.listDevices.mockResolvedValue({ failure });
    expect(await runCli(['list'])).toBe(1);
    expect(stderr).toBe('error: no ublk (ERR_UBLK_NO_DRIVER)\nhint: modprobe ublk_drv\n');
    expect(stdout).toBe('');
  });

  test('a failure with --json is JSON on stderr', async () => {
    const failure = { code: 'ERR_UBLK_NO_DEVICE', message: 'there is no device 9', errno: 19 };
    binding.deleteDevice.mockResolvedValue({ failure });
    expect(await runCli(['delete', '9', '--json'])).toBe(1);
    expect(JSON.parse(stderr)).toEqual({ error: failure });
  });

  test('delete takes several numbers, each once, and tells of each', async () => {
    const failure = { code: 'ERR_UBLK_BUSY', message: 'device 2 is in use' };
    binding.deleteDevice.mockReset().mockResolvedValue({ value: undefined });
    binding.deleteDevice.mockResolvedValueOnce({ failure });
    expect(await runCli(['delete', '2', '5', '2', '--force'])).toBe(1);
    expect(binding.deleteDevice.mock.calls).toEqual([
      [2, true],
      [5, true],
    ]);
    expect(stderr).toBe('error: device 2 is in use (ERR_UBLK_BUSY)\n');
    expect(stdout).toBe('deleted device 5\n');
  });

  test('delete --all takes what list shows, and minds none that has gone meanwhile', async () => {
    binding.listDevices.mockResolvedValue({ value: [device, { ...device, id: 7 }] });
    const failure = { code: 'ERR_UBLK_NO_DEVICE', message: 'there is no device 0' };
    binding.deleteDevice.mockReset().mockResolvedValue({ value: undefined });
    binding.deleteDevice.mockResolvedValueOnce({ failure });
    expect(await runCli(['delete', '--all', '--json'])).toBe(0);
    expect(stdout).toBe('{"id":7,"deleted":true}\n');
    expect(binding.deleteDevice).toHaveBeenCalledWith(7, false);
  });

  test('add takes metadata and limits', async () => {
    const failure = { code: 'ERR_UBLK_UNSUPPORTED', message: 'too old' };
    binding.createDevice.mockResolvedValue({ failure });
    const metadata = '--integrity crc64 --metadata-size 64 --pi-offset 48 --no-reference-tags';
    const limits = '--dma-alignment 4k --max-segments 32 --max-segment-size 32k';
    const args = `add file x.img --metadata-file x.md ${metadata} ${limits}`;
    expect(await runCli(args.split(' '))).toBe(1);
    expect(stderr).toContain('too old');
    const integrity = { checksum: 'crc64', metadataSize: 64, piOffset: 48, referenceTags: false };
    const path = expect.stringMatching(/\/x.md$/) as unknown;
    expect(binding.createDevice.mock.lastCall?.[0]).toMatchObject({
      target: { kind: 'file', integrity: { ...integrity, path } },
      limits: { dmaAlignment: 4096, maxSegments: 32, maxSegmentSize: 32 << 10 },
    });
  });

  test('add null takes metadata that it forgets', async () => {
    const failure = { code: 'ERR_UBLK_UNSUPPORTED', message: 'too old' };
    binding.createDevice.mockResolvedValue({ failure });
    const args = 'add null --size 1GiB --integrity none --metadata-size 8';
    expect(await runCli(args.split(' '))).toBe(1);
    const integrity = { checksum: 'none', metadataSize: 8, referenceTags: false };
    expect(binding.createDevice.mock.lastCall?.[0]).toMatchObject({ target: { integrity } });
  });

  test.each([
    ['striped a.img null:1GiB', [{ kind: 'file', readOnly: true }, { kind: 'null' }]],
    ['linear a.img', [{ kind: 'file', readOnly: true }]],
    ['delay a.img', [{ kind: 'file', readOnly: true }]],
    ['null --size 1GiB', undefined],
  ])('add %s takes --read-only and --block-size', async (words, below) => {
    const failure = { code: 'ERR_UBLK_UNSUPPORTED', message: 'too old' };
    binding.createDevice.mockResolvedValue({ failure });
    await runCli(`add ${words} --read-only --block-size 4096`.split(' '));
    const [kind] = words.split(' ');
    const target = {
      kind,
      readOnly: true,
      logicalBlockSize: 4096,
      ...(below && { targets: below }),
    };
    expect(binding.createDevice.mock.lastCall?.[0]).toMatchObject({ target });
    expect(await runCli(`add ${words} --block-size 8192`.split(' '))).toBe(2);
  });

  test('add striped leaves the files unlocked if it is told to', async () => {
    const failure = { code: 'ERR_UBLK_UNSUPPORTED', message: 'too old' };
    binding.createDevice.mockResolvedValue({ failure });
    await runCli('add striped a.img null:1GiB --no-lock'.split(' '));
    const targets = [{ kind: 'file', lock: false }, { kind: 'null' }];
    expect(binding.createDevice.mock.lastCall?.[0]).toMatchObject({ target: { targets } });
  });

  test('recover takes the words of add, and what it serves with', async () => {
    binding.deviceInfo.mockResolvedValue({ value: { ...device, depth: 64 } });
    const failure = { code: 'ERR_UBLK_BUSY', message: 'its server stays' };
    binding.recoverDevice.mockResolvedValue({ failure });
    const words = ['recover', '0', 'null', '--size', '1GiB', '--threads', '4', '--rings-apart'];
    const more = ['--affinity', '0,2-3', '--spin', '50', '--rotate-slots'];
    expect(await runCli([...words, ...more])).toBe(1);
    expect(stderr).toContain('its server stays');
    const target = { kind: 'null', size: 1 << 30 };
    const options = {
      target,
      threads: 4,
      spinUsec: 50,
      rotateSlots: true,
      ringsApart: true,
      affinity: [0, 2, 3],
      queues: 2,
      depth: 64,
    };
    expect(binding.recoverDevice).toHaveBeenCalledWith(0, options, expect.any(Function));
  });

  test('features of a device stand beside those of the kernel', async () => {
    const feature = (name: string, supported: boolean) => ({ name, since: '6.1', supported });
    binding.features.mockResolvedValue({
      value: [feature('ZONED', true), feature('QUIESCE', true)],
    });
    binding.deviceInfo.mockResolvedValue({ value: { ...device, features: ['QUIESCE'] } });
    expect(await runCli(['features', '0'])).toBe(0);
    expect(stdout).toMatch(/KERNEL +\/dev\/ublkb0 +FEATURE +SINCE LINUX/);
    expect(stdout).toMatch(/yes +no +ZONED +6.1\n/);
    expect(stdout).toMatch(/yes +yes +QUIESCE +6.1\n/);
  });

  test('set-affinity takes ranges', async () => {
    binding.setDeviceAffinity.mockResolvedValue({ value: 2 });
    expect(await runCli(['set-affinity', '0', '1,3-4', '--json'])).toBe(0);
    expect(binding.setDeviceAffinity).toHaveBeenCalledWith(0, [1, 3, 4]);
    expect(JSON.parse(stdout)).toEqual({ id: 0, cpus: [1, 3, 4], threads: 2 });
  });

  test('service … names the socket at which no service listens', async () => {
    expect(await runCli(['service', 'status', '--socket', '/nowhere/a.sock'])).toBe(1);
    expect(stderr).toContain('no service listens at /nowhere/a.sock (ERR_UBLK_NO_SERVICE)\nhint: ');
  });

  test('stop --json says what was done', async () => {
    binding.deviceInfo.mockResolvedValue({ value: device });
    binding.stopDevice.mockResolvedValue({ value: 'openers' });
    expect(await runCli(['stop', '3', '--json'])).toBe(0);
    expect(binding.stopDevice).toHaveBeenCalledWith(3, false);
    expect(JSON.parse(stdout)).toEqual({ id: 3, stopped: true, checked: 'openers' });
  });
});
