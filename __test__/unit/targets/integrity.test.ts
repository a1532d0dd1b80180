import { resolve } from 'node:path';

import { describe, expect, test } from 'vitest';

import { targets, toNativeTarget } from '../../../src/targets/index.ts';

const native = (integrity: object) =>
  toNativeTarget(targets.file('disk.img', { integrity })).integrity;

describe('integrity', () => {
  test('is frozen with its target', () => {
    const target = targets.file('disk.img', { integrity: { checksum: 'ip' } });
    expect(Object.isFrozen(target.integrity)).toBe(true);
  });

  test.each([
    [{}, { checksum: 'crc16', metadataSize: 8, referenceTags: true }],
    [{ checksum: 'ip' }, { checksum: 'ip', metadataSize: 8, referenceTags: true }],
    [{ checksum: 'crc64' }, { checksum: 'crc64', metadataSize: 16, referenceTags: true }],
    [
      { checksum: 'none', metadataSize: 3 },
      { checksum: 'none', metadataSize: 3, referenceTags: false },
    ],
  ])('%o has its defaults', (options, expected) => {
    const rest = { piOffset: 0, tagSize: 0, capable: false };
    expect(native(options)).toEqual({ ...rest, ...expected });
  });

  test('keeps its metadata where it is told to', () => {
    expect(native({ path: 'pi', interval: 4096, metadataSize: 64, piOffset: 56 })).toMatchObject({
      path: resolve('pi'),
      interval: 4096,
      metadataSize: 64,
      piOffset: 56,
    });
  });

  test('makes its file over data only where that is asked for', () => {
    expect(native({ create: false })).not.toHaveProperty('create');
    expect(native({ create: true })).toMatchObject({ create: true });
  });

  test('of the null target has no file', () => {
    const target = targets.null({ size: '1MiB', integrity: { checksum: 'ip' } });
    expect(toNativeTarget(target).integrity).toMatchObject({ checksum: 'ip' });
    expect(() => targets.null({ size: 512, integrity: { path: 'pi' } as never })).toThrow(
      /integrity has no 'path'/,
    );
  });

  test.each([
    [{ checksum: 'crc32' }, /checksum is "crc32"/],
    [{ checksum: 'none' }, /metadataSize is 0/],
    [{ metadataSize: 256 }, /metadataSize is 256/],
    [{ checksum: 'crc64', metadataSize: 8 }, /takes 16 bytes from piOffset 0/],
    [{ metadataSize: 64, piOffset: 57 }, /takes 8 bytes from piOffset 57/],
    [{ checksum: 'none', metadataSize: 8, referenceTags: true }, /exclude each other/],
    [{ interval: 1000 }, /interval is 1000/],
    [{ path: '' }, /integrity.path is ""/],
    ['crc16', /integrity must be an object/],
  ])('refuses %o', (integrity, message) => {
    expect(() => targets.file('a', { integrity: integrity as never })).toThrow(message);
  });
});
