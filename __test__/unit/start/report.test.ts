import { expect, test } from 'vitest';
import { toThroughput } from '../../../scripts/start/job/measure.ts';
import { type Outcome, formatReport } from '../../../scripts/start/report.ts';

const MEBIBYTE = 1024 ** 2;

const outcome: Outcome = {
  native: false,
  seconds: 77,
  kernel: '7.3.4',
  cpu: 'QEMU TCG CPU',
  image: { origin: 'made of the same files', bytes: 256 * MEBIBYTE },
  files: { count: 4, bytes: 3 * MEBIBYTE },
  device: {
    path: '/dev/ublkb7',
    size: 256 * MEBIBYTE,
    logicalBlockSize: 512,
    queues: 2,
    depth: 128,
    buffers: { mode: 'auto', exchange: 'per-io' },
    features: Array.from({ length: 20 }, (_, i) => `FEATURE_${i}`),
  },
  counters: {
    reads: 11,
    writes: 22,
    flushes: 33,
    discards: 44,
    writeZeroes: 55,
    readBytes: 3 * MEBIBYTE,
    writeBytes: MEBIBYTE,
    zeroCopyBytes: 3 * MEBIBYTE,
    copiedBytes: MEBIBYTE,
    errors: 0,
    shortResults: 0,
    zeroFilledBytes: 0,
    registrations: 0,
    fallbacks: 0,
    enters: 0,
  },
  verified: { count: 8, bytes: 6 * MEBIBYTE },
  check: '12/34 files',
  ublk: { write: 50 * MEBIBYTE, read: 300 * MEBIBYTE, randomRead: 1234.5 },
  loop: { write: 100 * MEBIBYTE, read: 100 * MEBIBYTE, randomRead: 1234.5, direct: true },
};

test('the report tells what happened, in lines that fit a terminal', async () => {
  const text = await formatReport(outcome);
  for (const fact of [
    /\/dev\/ublkb7, 2 queues x 128/,
    /auto \(per-io exchange\)/,
    /4 files, 3 MiB/,
    /8 files, 6 MiB; every SHA-256/,
    /read +│ +11 │ +3 MiB/,
    /write zeroes +│ +55 │/,
    /zero-copy +│ 3 MiB │ +75 %/,
    /copied +│ 1 MiB │ +25 %/,
    /write 1 MiB, 8 deep +│ +50 MiB\/s │ +100 MiB\/s │ +50 %/,
    /random read 4 KiB, 32 deep +│ +1235\/s/,
    /loop \(direct I\/O\)/,
    /emulated/,
    /77 s/,
  ]) {
    expect(text).toMatch(fact);
  }
  expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThan(120);
});

test.each([
  [7, 0, / zero-copy:/],
  [0, 7, / by copying:/],
  [7, 7, / partly zero-copy:/],
])('%d bytes zero-copy and %d copied are called what they are', async (zero, copied, name) => {
  const counters = { ...outcome.counters, zeroCopyBytes: zero, copiedBytes: copied };
  const [, headline] = (await formatReport({ ...outcome, counters })).split('\n');
  expect(headline).toMatch(name);
});

const job = (jobname: string, read: number, write: number, error = 0) => ({
  jobname,
  error,
  read: { bw_bytes: read, iops: read / 2 },
  write: { bw_bytes: write, iops: write / 2 },
});

test('fio’s figures are found behind its warnings', () => {
  const jobs = [job('write', 0, 10), job('read', 20, 0), job('randomRead', 30, 0)];
  const output = `fio: a warning\n${JSON.stringify({ jobs })}`;
  expect(toThroughput(output)).toEqual({ write: 10, read: 20, randomRead: 15 });
});

test('a job of fio that failed is an error', () => {
  const output = JSON.stringify({ jobs: [job('write', 0, 0, 5)] });
  expect(() => toThroughput(output)).toThrow(/write failed with errno 5/);
});
