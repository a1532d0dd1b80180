import { setImmediate } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import type { UblkError } from '../../../src/errors.ts';
import { checkHandler } from '../../../src/handler/handler.ts';
import * as layout from '../../../src/handler/layout.ts';
import { HandlerQueue } from '../../../src/handler/queue.ts';
import { checkPlace, writeReport } from '../../../src/handler/zone-report.ts';
import type { Handler, Zone } from '../../../src/index.ts';
import { FakeChannel } from './fake-channel.ts';

const MIB = 2 ** 20;
const zoned: Handler = {
  size: '16MiB',
  zones: { size: '4MiB', maxOpen: 2, maxActive: 3 },
  read() {},
  write() {},
  reportZones: () => [],
  zoneReset() {},
};

describe('A handler with zones', () => {
  test('is passed on with what it can do', () => {
    const { native, zoneSize, methods } = checkHandler(zoned);
    expect(native).toMatchObject({
      ops: ['read', 'write', 'zoneReset', 'reportZones'],
      zones: { size: 4 * MIB, maxOpen: 2, maxActive: 3 },
    });
    expect(zoneSize).toBe(4 * MIB);
    expect(methods[18]).toBeTypeOf('function');
  });

  test.each([
    [{ zones: { size: '3MiB' } }, 'zones.size is 3MiB; it must be a power of two'],
    [{ zones: { size: '4MiB', max: 1 } }, "zones has no 'max'"],
    [{ zones: undefined }, "the handler has 'reportZones' but no zones"],
    [{ reportZones: undefined }, "the handler has zones but no 'reportZones'"],
    [{ zoneReset: undefined }, "the handler has zones but no 'zoneReset'"],
  ])('%j is refused', (change, message) => {
    expect(() => checkHandler({ ...zoned, ...change } as never)).toThrow(message);
  });

  test('reports them as the kernel reads them', () => {
    const data = Buffer.alloc(3 * 64, 0xff);
    const zones = [
      { offset: 0, condition: 'conventional' },
      { offset: 4 * MIB, condition: 'implicitlyOpen', writePointer: 5 * MIB, capacity: 3 * MIB },
    ];
    writeReport(data, zones, 4 * MIB);
    const sectors = (at: number) => Number(data.readBigUInt64LE(at)) * 512;
    expect([sectors(0), sectors(8), sectors(16), data[24], data[25]]).toEqual([
      0,
      4 * MIB,
      0,
      1,
      0,
    ]);
    expect([sectors(64), sectors(72), sectors(80)]).toEqual([4 * MIB, 4 * MIB, 5 * MIB]);
    expect([data[88], data[89], sectors(96)]).toEqual([2, 2, 3 * MIB]);
    expect(data.subarray(128).every((byte) => byte === 0)).toBe(true);
    expect(() => writeReport(data, [{ offset: 0, condition: 'odd' }], MIB)).toThrow(/no such/);
    expect(() => writeReport(data, undefined, MIB)).toThrow(/array of zones/);
  });

  test.each<[string, unknown[], string]>([
    ['no zone', [], 'it must tell of the zone at 8388608'],
    ['a zone before', [{ offset: 4 * MIB }], 'zone 0 of the report is a zone at 4194304'],
    ['a zone of the start', [{}], 'zone 0 of the report is a zone at undefined'],
    ['a hole', [undefined], 'zone 0 of the report is undefined'],
    [
      'a gap',
      [
        { offset: 8 * MIB, condition: 'full' },
        { offset: 16 * MIB, condition: 'full' },
      ],
      'zone 1 of the report is a zone at 16777216; it must be the zone at 12582912',
    ],
    [
      'a write pointer beyond',
      [{ offset: 8 * MIB, condition: 'closed', writePointer: 13 * MIB }],
      'the writePointer of a zone is 13631488',
    ],
    ['no capacity', [{ offset: 8 * MIB, condition: 'empty', capacity: 0 }], 'the capacity'],
  ])('fails a report that the kernel would not end with or refuse: %s', async (_, zones, why) => {
    const warnings: UblkError[] = [];
    const channel = new FakeChannel();
    const checked = checkHandler({ ...zoned, reportZones: async () => zones as Zone[] });
    const queue = new HandlerQueue(channel, {
      ...checked,
      queue: 0,
      depth: channel.depth,
      warn: (warning) => warnings.push(warning),
    });
    channel.ask({ op: 18, offset: 8 * MIB, length: 128 });
    queue.serve();
    await setImmediate();
    expect(channel.answers()).toMatchObject([{ kind: layout.ANSWER_FAILED }]);
    expect(warnings).toMatchObject([{ message: expect.stringContaining(why) }]);
  });

  test('says where an append went, within its zone', () => {
    expect(checkPlace(5 * MIB, 4 * MIB, 4096, 4 * MIB)).toBe(5 * MIB);
    for (const place of [undefined, 4 * MIB - 512, 8 * MIB - 512, 4 * MIB + 1, Number.NaN]) {
      expect(() => checkPlace(place, 4 * MIB, 4096, 4 * MIB)).toThrow(/where in the zone/);
    }
  });
});
