import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import type { DeviceInfo } from '../../../src/info.ts';
import { recordOptions, recordTarget } from '../../../src/records/plain.ts';
import type { DeviceRecord } from '../../../src/records/record.ts';
import type { NamedOptions } from '../../../src/service/config.ts';
import type { SeenDevice } from '../../../src/service/observe.ts';
import { plan, type OwnDevice } from '../../../src/service/plan.ts';
import { targets } from '../../../src/targets/index.ts';

const MIB = 1 << 20;
const wanted: NamedOptions = {
  name: 'data',
  target: targets.null({ size: MIB }),
  depth: 64,
  recovery: 'reissue',
};
const info: DeviceInfo = {
  id: 3,
  path: '/dev/ublkb3',
  state: 'live',
  queues: 1,
  depth: 64,
  maxIoBytes: MIB,
  size: MIB,
  logicalBlockSize: 512,
  readOnly: false,
  serverPid: 7,
  ownerUid: 0,
  ownerGid: 0,
  recovery: 'reissue',
  features: [],
};

function recordOf(options: NamedOptions): DeviceRecord {
  const { name, target } = options;
  const told = { queues: 1, depth: 64, maxIoBytes: MIB, size: MIB, logicalBlockSize: 512 };
  return {
    boot: 'x',
    instance: '1',
    id: 3,
    name,
    pid: 7,
    since: 'now',
    target: recordTarget(target),
    options: recordOptions(options),
    told: { ...told, readOnly: false },
  };
}

const served: SeenDevice = { info, name: 'data', isServed: true, record: recordOf(wanted) };
const left: SeenDevice = { ...served, isServed: false };

describe('the plan of a service', () => {
  test('creates what is missing', () => {
    expect(plan([wanted], [])).toMatchObject([{ name: 'data', action: 'create' }]);
    const other = { ...served, name: 'other' };
    expect(plan([wanted], [other])).toMatchObject([{ action: 'create' }]);
  });

  test('keeps what another process serves, and recovers it when that has died', () => {
    expect(plan([wanted], [served])).toMatchObject([{ action: 'keep', id: 3, remains: [] }]);
    expect(plan([wanted], [left])).toMatchObject([{ action: 'recover', id: 3, remains: [] }]);
  });

  test('replaces a dead device without recovery', () => {
    const { recovery: _, ...mortal } = info;
    const dead = { ...left, info: { ...mortal, state: 'dead' as const } };
    expect(plan([wanted], [dead])).toMatchObject([{ action: 'replace', id: 3 }]);
  });

  test('names what differs and cannot change', () => {
    const now = {
      ...wanted,
      depth: 128,
      id: 4,
      spinUsec: 50,
      target: targets.null({ size: 2 * MIB }),
    };
    expect(plan([now], [left])).toMatchObject([
      {
        action: 'recover',
        remains: [
          'the number is 3, not 4',
          'depth was 64 and is 128',
          'the size was 1 MiB and is 2 MiB',
        ],
      },
    ]);
    const { record: _, ...unknown } = left;
    expect(plan([now], [unknown])).toMatchObject([
      { action: 'recover', remains: ['the number is 3, not 4'] },
    ]);
  });

  test('recovers with the declared target, and says how that differs', () => {
    const before = { ...wanted, target: targets.file('/srv/a.img', { size: MIB }) };
    const now = { ...before, depth: 128, target: targets.file('/srv/b.img', { size: MIB }) };
    const path = 'target.path was "/srv/a.img" and is "/srv/b.img"';
    const depth = 'depth was 64 and is 128';
    const recorded = { ...left, record: recordOf(before) };
    expect(plan([now], [recorded])).toMatchObject([
      { action: 'recover', why: `the device waits for a server; ${path}`, remains: [depth] },
    ]);
    expect(plan([now], [{ ...recorded, isServed: true }])).toMatchObject([
      { action: 'keep', remains: [path, depth] },
    ]);
  });

  test('takes no number and no name from another device', () => {
    const other = { ...served, name: undefined, serves: '/srv/other.img' };
    expect(plan([{ ...wanted, id: 3 }], [other])).toMatchObject([
      { action: 'refuse', why: 'number 3 is that of a device of /srv/other.img' },
    ]);
    const twin = { ...served, info: { ...info, id: 4, path: '/dev/ublkb4' } };
    expect(plan([wanted], [served, twin])).toMatchObject([{ action: 'refuse' }]);
  });
});

describe('the plan for the own devices of a service', () => {
  function own(options: NamedOptions = wanted): Map<string, OwnDevice> {
    return new Map([[options.name, { id: 3, size: MIB, logicalBlockSize: 512, options }]]);
  }

  test('keeps what has not changed', () => {
    expect(plan([wanted], [served], own())).toMatchObject([{ action: 'keep', remains: [] }]);
  });

  test('changes a size, and names other changes', () => {
    const now = { ...wanted, spinUsec: 50, target: targets.null({ size: 2 * MIB }) };
    expect(plan([now], [served], own())).toMatchObject([
      { action: 'resize', size: 2 * MIB, remains: ['spinUsec was the default and is 50'] },
    ]);
    const blocks = { ...wanted, target: targets.null({ size: 2 * MIB, logicalBlockSize: 4096 }) };
    expect(plan([blocks], [served], own())).toMatchObject([
      { action: 'keep', remains: ['target.logicalBlockSize was the default and is 4096'] },
    ]);
  });

  test('changes limits, and keeps the limits of other servers', () => {
    const now = { ...wanted, throttle: { iops: 10 } };
    const why = 'throttle.all.iops was the default and is 10';
    expect(plan([now], [served], own())).toMatchObject([{ action: 'throttle', why, remains: [] }]);
    expect(plan([now], [served], new Map())).toMatchObject([{ action: 'keep', remains: [] }]);
    expect(plan([now], [served], own(now))).toMatchObject([{ action: 'keep', remains: [] }]);
  });

  test('stops what the configuration has no more', () => {
    expect(plan([], [served], own())).toMatchObject([{ name: 'data', action: 'stop', id: 3 }]);
  });

  test('gives the number of a device that stops to another', () => {
    const other = { ...wanted, name: 'other', id: 3 };
    expect(plan([other], [served], own())).toMatchObject([
      { name: 'data', action: 'stop', id: 3 },
      { name: 'other', action: 'create' },
    ]);
  });

  test('grows a device with its file, and shrinks it only on request', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ublk-plan-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'a.img');
    writeFileSync(path, '');
    const file = { ...wanted, target: targets.file(path) };
    const step = (size: number, options: NamedOptions = file) => {
      truncateSync(path, size);
      return plan([options], [], own(file))[0];
    };
    expect(step(MIB + 100)).toMatchObject({ action: 'keep', remains: [] });
    expect(step(2 * MIB + 100)).toMatchObject({ action: 'resize', size: 2 * MIB });
    expect(step(MIB / 2)).toMatchObject({
      action: 'keep',
      remains: ['the file holds 512 KiB only; declare that size to shrink the device'],
    });
    const small = { ...wanted, target: targets.file(path, { size: MIB / 2 }) };
    expect(step(MIB, small)).toMatchObject({ action: 'resize', size: MIB / 2 });
  });

  test('knows another module of a handler', () => {
    const module = (url: string) =>
      ({ ...wanted, target: { kind: 'module', url, workers: 1, data: 0 } }) as const;
    expect(plan([module('file:///b.js')], [], own(module('file:///a.js')))).toMatchObject([
      { action: 'keep', remains: ['the module of the handler is another'] },
    ]);
  });
});
