import { createRequire } from 'node:module';

import { expect, test } from 'vitest';

import { load } from '../../src/native.ts';

test('off Linux the addon is not even looked for', () => {
  const require = () => expect.unreachable();
  expect(() => load(require, 'darwin', 'arm64')).toThrow(
    expect.objectContaining({ code: 'ERR_UBLK_UNSUPPORTED_PLATFORM' }),
  );
});

test('a missing addon is named, with how to get it', () => {
  const require = createRequire(import.meta.url);
  const missing = () => require('./no-such-addon.cjs') as unknown;
  expect(() => load(missing, 'linux', 'x64')).toThrow(
    expect.objectContaining({
      code: 'ERR_UBLK_NO_ADDON',
      message: expect.stringMatching(/ublk-linux-x64-(gnu|musl)/) as string,
      hint: expect.stringContaining('npm run build:native') as string,
    }),
  );
});

test('an addon that does not load says why, though the loader tried other places too', () => {
  const dlopen = Object.assign(new Error("version `GLIBC_2.99' not found"), {
    code: 'ERR_DLOPEN_FAILED',
  });
  const loader = () => {
    throw new Error('Cannot find native binding', { cause: new Error('other', { cause: dlopen }) });
  };
  expect(() => load(loader, 'linux', 'x64')).toThrow(/does not load: .*GLIBC_2.99/);
});
