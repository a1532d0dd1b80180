import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

// A guest without hardware virtualisation runs node some thirty times slower.
const GUEST_MS = 180_000;

const source = (file: string): string => fileURLToPath(new URL(`src/${file}`, import.meta.url));

// What examples import; see `paths` in tsconfig.json.
const resolve = {
  alias: { 'ublk/testing': source('testing/index.ts'), ublk: source('index.ts') },
};

export default defineConfig({
  test: {
    projects: [
      {
        resolve,
        test: { name: 'unit', include: ['__test__/unit/**/*.test.ts', 'examples/**/*.test.ts'] },
      },
      {
        resolve,
        test: {
          name: 'kernel',
          include: ['__test__/kernel/**/*.test.ts'],
          // One kernel, one set of device numbers: tests look at what is left behind.
          fileParallelism: false,
          testTimeout: GUEST_MS,
          hookTimeout: GUEST_MS,
        },
      },
      {
        test: {
          name: 'package',
          include: ['__test__/package/**/*.test.ts'],
          testTimeout: 5 * GUEST_MS,
          hookTimeout: 5 * GUEST_MS,
        },
      },
    ],
  },
});
