// One measurement of one row, and the median of several. Pure.

import type { FioResult } from './fio.ts';

export interface Measurement {
  /** Nanoseconds of the clock per I/O, 1e9 / IOPS; where instructions are counted, that many. */
  cost: number;
  iops: number;
  meanLatencyNs: number;
  p99LatencyNs: number;
  /** Of the whole machine: client, kernel and server. */
  cpuSecondsPerIo: number;
  /** System calls of the server's queue threads (io_uring_enter is all they do) per I/O. */
  syscallsPerIo?: number;
  /** Requests of the device that one io_uring_enter served. */
  requestsPerEnter?: number;
  /** Resident memory of the server. */
  memoryKiB?: number;
}

export interface Observed {
  fio: FioResult;
  /** The server's counters before and after. */
  counters?: readonly [Record<string, number>, Record<string, number>];
  cpuSeconds: number;
  memoryKiB: number | undefined;
}

/** Throws when the server failed requests. */
export function measurementOf({ fio, counters, cpuSeconds, memoryKiB }: Observed): Measurement {
  const ios = fio.ios + fio.warmIos; // counters and CPU time include the warm-up
  return {
    cost: 1e9 / fio.iops,
    iops: fio.iops,
    meanLatencyNs: fio.meanLatencyNs,
    p99LatencyNs: fio.p99LatencyNs,
    cpuSecondsPerIo: cpuSeconds / ios,
    ...(counters && calls(ios, ...counters)),
    ...(memoryKiB !== undefined && { memoryKiB }),
  };
}

function calls(ios: number, before: Record<string, number>, after: Record<string, number>) {
  const grown = (name: string) => (after[name] ?? Number.NaN) - (before[name] ?? Number.NaN);
  const errors = grown('errors');
  if (errors > 0) throw new Error(`the server failed ${errors} requests`);
  const enters = grown('enters');
  return { syscallsPerIo: enters / ios, requestsPerEnter: grown('requests') / enters };
}

/** The measurement of median cost; of an even number, the cheaper of the middle two. */
export function medianOf(all: readonly Measurement[]): Measurement | undefined {
  const sorted = [...all].sort((one, other) => one.cost - other.cost);
  return sorted[(sorted.length - 1) >> 1];
}
