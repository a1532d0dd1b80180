import { describe, expect, test } from 'vitest';

import { formatSize, parseSize } from '../../../src/size.ts';

describe('parseSize', () => {
  test.each([
    [4096, 4096],
    [4096n, 4096],
    ['4096', 4096],
    ['4096B', 4096],
    ['0', 0],
    ['4k', 4096],
    ['4K', 4096],
    ['4Ki', 4096],
    ['4KiB', 4096],
    ['4 kib', 4096],
    ['1MiB', 1 << 20],
    ['1GiB', 1 << 30],
    ['1.5G', 3 * (1 << 29)],
    ['0.5k', 512],
    ['2T', 2 ** 41],
    ['3P', 3 * 2 ** 50],
    ['8s', 4096],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each(['1KB', '1gb', '0.5Mb'])('%s is refused as ambiguous, with what to write', (text) => {
    expect(() => parseSize(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_UBLK_INVALID_ARGUMENT',
        hint: expect.stringMatching(/iB'/) as string,
      }),
    );
  });

  test.each(['', 'k', '-1', '1e3', '0x10', '1 GiB ', '1  G', '1Q', '1kk', '1S', '1,5G'])(
    "'%s' is no size",
    (text) => {
      expect(() => parseSize(text)).toThrow(/is no size/);
    },
  );

  test.each([-1, 1.5, NaN, Infinity, -1n])('%s is no whole number of bytes', (value) => {
    expect(() => parseSize(value)).toThrow(/whole number of bytes/);
  });

  test.each([undefined, null, {}, true])('%s of the wrong type is refused', (value) => {
    expect(() => parseSize(value as unknown as number)).toThrow(/whole number of bytes/);
  });

  test('a fraction of a byte is refused, not rounded', () => {
    expect(() => parseSize('0.3k')).toThrow(/no whole number of bytes/);
  });

  test.each(['8P', 2n ** 53n, 2 ** 53])('%s is more than numbers count exactly', (value) => {
    expect(() => parseSize(value, 'target size')).toThrow(/^target size .* at most/);
  });
});

describe('formatSize', () => {
  test.each([
    [0, '0 B'],
    [512, '512 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1 << 30, '1 GiB'],
    [2 ** 50, '1 PiB'],
    [Number.MAX_SAFE_INTEGER, '8.0 PiB'],
  ])('%d bytes are %s', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });
});
