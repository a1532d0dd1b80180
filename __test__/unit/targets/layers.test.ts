import { resolve } from 'node:path';

import { describe, expect, test } from 'vitest';

import { parseTarget } from '../../../src/cli/commands/add-layers.ts';
import { targets, toNativeTarget, type Target } from '../../../src/targets/index.ts';

const disk = targets.null({ size: '1MiB' });
const nativeDisk = { kind: 'null', size: 1 << 20 };

describe('targets.striped', () => {
  test('is frozen data, its list of targets too', () => {
    const list = [disk, targets.file('b.img')];
    const target = targets.striped(list, { chunk: '128KiB' });
    list.pop();
    expect(target).toEqual({
      kind: 'striped',
      chunk: '128KiB',
      targets: [disk, targets.file('b.img')],
    });
    expect(Object.isFrozen(target) && Object.isFrozen(target.targets)).toBe(true);
  });

  test('passes its targets on, and chunks of 64 KiB if none are asked for', () => {
    expect(
      toNativeTarget(targets.striped([disk, targets.file('b.img', { direct: false })])),
    ).toEqual({
      kind: 'striped',
      chunk: 65536,
      targets: [
        nativeDisk,
        { kind: 'file', path: resolve('b.img'), direct: 'no', readOnly: false },
      ],
    });
  });

  test.each([0, '2k', '12k', '32M', 65537])('refuses a chunk of %s', (chunk) => {
    expect(() => targets.striped([disk], { chunk })).toThrow(
      /chunk is .*; it must be a power of two from 4 KiB to 16 MiB/,
    );
  });

  test.each([
    [disk, /targets must be an array of targets/],
    [[], /targets has 0 targets; it must have from 1 to 64/],
    [Array.from({ length: 65 }, () => disk), /targets has 65 targets/],
    [[disk, 'b.img'], /targets\[1\] is no target/],
  ])('refuses as its targets %o', (list, message) => {
    expect(() => targets.striped(list as never)).toThrow(message);
  });
});

describe('targets.linear', () => {
  test('passes its targets on in order', () => {
    const target = targets.linear([targets.error({ size: 512 }), disk]);
    expect(toNativeTarget(target)).toEqual({
      kind: 'linear',
      targets: [{ kind: 'error', size: 512 }, nativeDisk],
    });
  });
});

describe('targets.delay', () => {
  test('delays flushes like writes unless told otherwise', () => {
    const native = (options: object) => toNativeTarget(targets.delay(disk, options));
    const kind = { kind: 'delay', targets: [nativeDisk] };
    expect(native({ writeUs: 7 })).toEqual({ ...kind, readUs: 0, writeUs: 7, flushUs: 7 });
    expect(native({ writeUs: 7, flushUs: 0 })).toEqual({
      ...kind,
      readUs: 0,
      writeUs: 7,
      flushUs: 0,
    });
  });

  test.each([{ readUs: -1 }, { writeUs: 0.5 }, { flushUs: 2 ** 31 }, { readUs: '5' }])(
    'refuses %o',
    (options) => {
      expect(() => targets.delay(disk, options as never)).toThrow(/must be a whole number from 0/);
    },
  );
});

describe('layers', () => {
  test('lie upon each other, eight deep at most', () => {
    let target: Target = disk;
    for (let depth = 0; depth < 8; depth++) target = targets.delay(target, { readUs: 1 });
    expect(toNativeTarget(target).kind).toBe('delay');
    expect(() => toNativeTarget(targets.striped([target]))).toThrow(/more than 8 layers/);
  });

  test('check what lies below, also when written as plain data', () => {
    const target = { kind: 'delay', target: { kind: 'fiel' } };
    expect(() => toNativeTarget(target as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'file'?" }),
    );
    expect(() => toNativeTarget({ kind: 'linear' } as never)).toThrow(/must be an array/);
  });
});

test('a target in one word is a file unless it says what else', () => {
  expect(parseTarget('null:1MiB')).toEqual({ kind: 'null', size: '1MiB' });
  expect(parseTarget('error:4k')).toEqual({ kind: 'error', size: '4k' });
  expect(parseTarget('nullify.img')).toEqual({ kind: 'file', path: 'nullify.img' });
  expect(() => parseTarget('null:')).toThrow(/size '' is no size/);
});
