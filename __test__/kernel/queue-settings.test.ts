import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

import { afterEach, expect, test } from 'vitest';

import { createDevice, targets } from '../../src/index.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const target = targets.null({ size: '64MiB' });

function setting(path: string, name: string): string {
  return readFileSync(`/sys/block/${basename(path)}/queue/${name}`, 'utf8').trim();
}

withUblk("a device's queue", () => {
  afterEach(expectNoDevices);

  test('has the settings that were asked for', async () => {
    const queue = { scheduler: 'mq-deadline', nomerges: 2, iostats: false } as const;
    const more = { rqAffinity: 2, readAheadKb: 64, maxSectorsKb: 128, wbtLatUsec: 5000 } as const;
    await using device = await createDevice({ target, queue: { ...queue, ...more } });
    expect(setting(device.path, 'scheduler')).toContain('[mq-deadline]');
    expect(setting(device.path, 'nomerges')).toBe('2');
    expect(setting(device.path, 'iostats')).toBe('0');
    expect(setting(device.path, 'rq_affinity')).toBe('2');
    expect(setting(device.path, 'read_ahead_kb')).toBe('64');
    expect(setting(device.path, 'max_sectors_kb')).toBe('128');
    expect(setting(device.path, 'wbt_lat_usec')).toBe('5000');
  });

  test('does not hold back writes that take no time, unless asked to', async () => {
    await using byDefault = await createDevice({ target });
    await expect.poll(() => setting(byDefault.path, 'wbt_lat_usec')).toBe('0');
    await using asked = await createDevice({ target, queue: { wbtLatUsec: -1 } });
    expect(Number(setting(asked.path, 'wbt_lat_usec'))).toBeGreaterThan(0);
  });

  test('that cannot be so takes the device down again, and says what there is', async () => {
    await expect(createDevice({ target, queue: { scheduler: 'fifo' } })).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringContaining('queue/scheduler'),
    });
  });
});
