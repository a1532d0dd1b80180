import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

import { Balanced } from './__test__/balanced.ts';

// A guest without hardware virtualisation runs node some thirty times slower.
const GUEST_MS = 180_000;

const source = (file: string): string => fileURLToPath(new URL(`src/${file}`, import.meta.url));

// The imports of the examples, like `paths` in tsconfig.json.
const resolve = {
  alias: { 'ublk/testing': source('testing/index.ts'), ublk: source('index.ts') },
};

/** Tests independent of the kernel's release: one kernel is enough. */
const SAME_EVERYWHERE = [
  'bad-input',
  'completions',
  'examples',
  'exit',
  'filesystem',
  'handler*',
  'queue-settings',
].map(testFile);

/** Tests where the release matters most, in a few minutes: `npm test` on an older kernel. */
const MOST_TELLING = ['defaults', 'features', 'recovery', 'verify'].map(testFile);

/** Commands, ends of processes, examples, many cycles, other releases of Node: 18 minutes. */
const LONG = [
  'bad-input',
  'cli',
  'containers',
  'examples',
  'exit',
  'handler-cycles',
  'handler-threads',
  'handler-twice',
  'lifetime',
  'metrics',
  'node-versions',
  'overlay-verbs',
  'rings-apart',
  'service-control',
  'short-enter',
  'shutdown',
  'swap',
  'threads',
  'top',
  'upgrade',
].map(testFile);

/** Tests on a Ceph cluster, which takes a minute to come up: a stage of `npm test` by themselves. */
const CEPH = ['rbd'].map(testFile);

/** The part of the kernel's tests that a stage of `npm test` asks for; all tests without the variable. */
const matrix = process.env.UBLK_TEST_MATRIX ?? '';
/** Short stages run one variant where others are alike (`isBrief` in __test__/kernel/modes.ts). */
const IN_FULL = ['verify'].map(testFile);
const INCLUDED: Record<string, string[]> = {
  brief: MOST_TELLING,
  ceph: CEPH,
  long: [...LONG, ...IN_FULL],
};
const EXCLUDED: Record<string, string[]> = {
  short: [...LONG, ...CEPH],
  whole: [...SAME_EVERYWHERE, ...CEPH],
};

function testFile(name: string): string {
  return `__test__/kernel/${name}.test.ts`;
}

export default defineConfig({
  test: {
    sequence: { sequencer: Balanced },
    reporters: ['default', './__test__/reporters/skips.ts', './__test__/reporters/failures.ts'],
    projects: [
      {
        resolve,
        test: {
          name: 'unit',
          include: ['__test__/unit/**/*.test.ts', 'examples/**/*.test.ts'],
          // For what hangs: a loaded machine needs more than the usual five seconds for some tests.
          testTimeout: 60_000,
        },
      },
      {
        resolve,
        test: {
          name: 'kernel',
          setupFiles: ['__test__/kernel/stuck.ts'],
          include: INCLUDED[matrix] ?? ['__test__/kernel/**/*.test.ts'],
          exclude: EXCLUDED[matrix] ?? [],
          // One kernel has one set of device numbers, and tests look for devices that are left behind.
          fileParallelism: false,
          // A process for each file would take longer than most of them.
          isolate: false,
          testTimeout: GUEST_MS,
          hookTimeout: GUEST_MS,
          // An emulated guest stands still for a second at times. A test that passes on the second try is
          // named at the end.
          retry: 1,
        },
      },
      {
        resolve,
        test: {
          name: 'export',
          include: ['__test__/export/**/*.test.ts'],
          // For what hangs, on a loaded machine.
          testTimeout: 120_000,
          // Tests count the descriptors of their process.
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'systemd',
          include: ['__test__/systemd/**/*.test.ts'],
          // A test boots several machines.
          testTimeout: 10 * GUEST_MS,
          hookTimeout: 5 * GUEST_MS,
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
