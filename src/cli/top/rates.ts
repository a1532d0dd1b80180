import type { DiskStat } from '../../disk-stat.ts';

/** The kernel's counters of a device at one moment. */
export interface Reading {
  /** In milliseconds of a clock that only goes forward. */
  readonly atMs: number;
  readonly stat: DiskStat;
}

/** What a device did between two readings. Latencies are means, from queueing to completion. */
export interface Rates {
  readonly readsPerSecond: number;
  readonly writesPerSecond: number;
  readonly readBytesPerSecond: number;
  readonly writeBytesPerSecond: number;
  readonly discardsPerSecond: number;
  readonly flushesPerSecond: number;
  /** In milliseconds; absent without a read. */
  readonly readMs?: number;
  /** In milliseconds; absent without a write. */
  readonly writeMs?: number;
  /** In milliseconds; absent without a flush. */
  readonly flushMs?: number;
  /** Requests in flight at the later reading. */
  readonly inFlight: number;
  /** The share of the time with at least one request in flight, 0 to 1. */
  readonly busy: number;
}

const IDLE: Rates = {
  readsPerSecond: 0,
  writesPerSecond: 0,
  readBytesPerSecond: 0,
  writeBytesPerSecond: 0,
  discardsPerSecond: 0,
  flushesPerSecond: 0,
  inFlight: 0,
  busy: 0,
};

/** The rates between two readings of one device. */
export function ratesOf(before: Reading, now: Reading): Rates {
  // The same counters: nothing has ended.
  if (now.stat === before.stat)
    return now.stat.inFlight === 0 ? IDLE : { ...IDLE, inFlight: now.stat.inFlight };
  const ms = Math.max(now.atMs - before.atMs, 1);
  const grown = (key: keyof DiskStat): number => Math.max(now.stat[key] - before.stat[key], 0);
  const perSecond = (key: keyof DiskStat): number => (grown(key) * 1000) / ms;
  const mean = (key: keyof DiskStat, count: keyof DiskStat): number | undefined =>
    grown(count) === 0 ? undefined : grown(key) / grown(count);
  const [readMs, writeMs] = [mean('readMs', 'reads'), mean('writeMs', 'writes')];
  const flushMs = mean('flushMs', 'flushes');
  return {
    readsPerSecond: perSecond('reads'),
    writesPerSecond: perSecond('writes'),
    readBytesPerSecond: perSecond('readBytes'),
    writeBytesPerSecond: perSecond('writeBytes'),
    discardsPerSecond: perSecond('discards'),
    flushesPerSecond: perSecond('flushes'),
    ...(readMs !== undefined && { readMs }),
    ...(writeMs !== undefined && { writeMs }),
    ...(flushMs !== undefined && { flushMs }),
    inFlight: now.stat.inFlight,
    busy: Math.min(grown('busyMs') / ms, 1),
  };
}
