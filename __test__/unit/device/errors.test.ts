import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';

import { expect, test } from 'vitest';

import { UblkError, UblkErrorCode, unwrap } from '../../../src/errors.ts';
import { toNativeOptions, type DeviceOptions } from '../../../src/options.ts';

test('a failure of the addon becomes an error with all it said', () => {
  const failure = {
    code: 'ERR_UBLK_BUSY',
    message: 'cannot open it: Device or resource busy',
    errno: 16,
    syscall: 'open',
    hint: 'close it first',
  };
  const error = (() => {
    try {
      return unwrap({ failure });
    } catch (thrown) {
      return thrown;
    }
  })();
  expect(error).toBeInstanceOf(UblkError);
  expect(error).toMatchObject({ ...failure, name: 'UblkError' });
});

test('an answer of the addon is its value, also when that is nothing', () => {
  expect(unwrap({ value: undefined })).toBeUndefined();
});

test('UblkError.is knows errors of this package, and no others', () => {
  expect(UblkError.is(new UblkError(UblkErrorCode.Busy, 'busy'))).toBe(true);
  expect(UblkError.is(new Error('busy'))).toBe(false);
  expect(UblkError.is({ code: UblkErrorCode.Busy })).toBe(false);
});

test('the hint is shown when an error is printed', () => {
  const error = new UblkError(UblkErrorCode.NoDriver, 'no driver', { hint: 'modprobe ublk_drv' });
  expect(inspect(error)).toContain('modprobe ublk_drv');
});

const answer = (): void => {};
const ZONED = {
  size: 512,
  read: answer,
  write: answer,
  reportZones: answer,
  zoneReset: answer,
  zones: { size: 1 },
};

test.each([
  [{ depth: 0 }, 'depth'],
  [{ dept: 1 }, 'dept'],
  [{ affinity: [0, -1] }, 'affinity[1]'],
  [{ limits: { maxSegments: 0 } }, 'limits.maxSegments'],
  [{ queue: { merge: 0 } }, 'queue.merge'],
  [{ target: { kind: 'fiel' } }, 'target.kind'],
  [{ target: { size: 512, read() {}, backends: { a: 1 } } }, 'target.backends.a'],
  [{ target: ZONED }, 'target.zones.size'],
  [
    {
      target: {
        kind: 'delay',
        target: { kind: 'linear', targets: [{ kind: 'null', size: 512 }, { kind: 'null' }] },
      },
    },
    'target.target.targets[1].size',
  ],
])('an error about an option names the option in its key: %j', (wrong, key) => {
  const options = { target: { kind: 'null', size: 4096 }, ...wrong } as unknown as DeviceOptions;
  expect(() => toNativeOptions(options)).toThrow(expect.objectContaining({ key }));
});

test('every code of the core is a code here', () => {
  const core = readFileSync(
    new URL('../../../crates/ublk-core/src/error.rs', import.meta.url),
    'utf8',
  );
  const codes = [...core.matchAll(/"(ERR_UBLK_\w+)"/g)].map((match) => match[1]);
  expect(codes.length).toBeGreaterThan(10);
  expect(Object.values(UblkErrorCode)).toEqual(expect.arrayContaining(codes));
});
