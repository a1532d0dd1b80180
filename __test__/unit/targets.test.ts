import { resolve } from 'node:path';

import { describe, expect, test } from 'vitest';

import { targets, toNativeTarget, type Target } from '../../src/targets/index.ts';

describe('targets.null', () => {
  test('is frozen data', () => {
    const target = targets.null({ size: '1GiB' });
    expect(target).toEqual({ kind: 'null', size: '1GiB' });
    expect(Object.isFrozen(target)).toBe(true);
  });

  test('passes its size on in bytes', () => {
    expect(toNativeTarget(targets.null({ size: '4k' }))).toEqual({ kind: 'null', size: 4096 });
  });

  test('refuses a size of nothing', () => {
    expect(() => targets.null({ size: 0 })).toThrow(/size is 0/);
  });

  test('refuses options that are missing or misspelled', () => {
    expect(() => targets.null(undefined as never)).toThrow(/must be an object, not undefined/);
    expect(() => targets.null({ sise: 1 } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'size'?" }),
    );
  });
});

describe('targets.file', () => {
  test('is frozen data that keeps the path as it was given', () => {
    const target = targets.file('disk.img', { readOnly: true });
    expect(target).toEqual({ kind: 'file', path: 'disk.img', readOnly: true });
    expect(Object.isFrozen(target)).toBe(true);
  });

  test('passes on an absolute path and its defaults', () => {
    expect(toNativeTarget(targets.file('disk.img'))).toEqual({
      kind: 'file',
      path: resolve('disk.img'),
      direct: 'auto',
      readOnly: false,
    });
  });

  test.each([
    [true, 'yes'],
    [false, 'no'],
    ['auto', 'auto'],
  ] as const)('direct: %s is passed on as %s', (direct, native) => {
    expect(toNativeTarget(targets.file('/a', { direct })).direct).toBe(native);
  });

  test.each([
    [{ direct: 'always' }, /direct is always/],
    [{ readOnly: 'yes' }, /readOnly is "yes"; it must be true or false/],
    [{ logicalBlockSize: 1000 }, /logicalBlockSize is 1000/],
    [{ size: '1KB' }, /two ways/],
  ])('refuses %o', (options, message) => {
    expect(() => targets.file('/a', options as never)).toThrow(message);
  });

  test.each(['', 'a\0b', 7, undefined])('refuses the path %o', (path) => {
    expect(() => targets.file(path as never)).toThrow(/path is .*; it must be the path of a file/);
  });

  test('suggests the option that was meant', () => {
    expect(() => targets.file('/a', { readonly: true } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'readOnly'?" }),
    );
  });
});

describe('a target', () => {
  test('may be written as plain data', () => {
    const target: Target = { kind: 'null', size: 512 };
    expect(toNativeTarget(target)).toEqual({ kind: 'null', size: 512 });
  });

  test.each([undefined, null, 'disk.img', {}])('%o is none', (target) => {
    expect(() => toNativeTarget(target as never)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('targets.file') as string }),
    );
  });

  test('of an unknown kind gets a suggestion', () => {
    expect(() => toNativeTarget({ kind: 'fiel' } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'file'?" }),
    );
  });
});
