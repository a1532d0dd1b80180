import { defineConfig } from 'vitest/config';

// A guest without hardware virtualisation runs node some thirty times slower.
const GUEST_MS = 180_000;

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['__test__/unit/**/*.test.ts'] } },
      {
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
