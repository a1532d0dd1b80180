import { readFileSync } from 'node:fs';

/**
 * The kernel's counters of a device since the device was created, from `/sys/block/ublkbN/stat`. The
 * kernel counts nothing while the setting `iostats` of the device is 0.
 */
export interface DiskStat {
  readonly reads: number;
  readonly readBytes: number;
  /** The time of all reads together, from queueing to completion, in milliseconds. */
  readonly readMs: number;
  readonly writes: number;
  readonly writeBytes: number;
  /** In milliseconds, as {@link readMs}. */
  readonly writeMs: number;
  /** Requests in flight now. */
  readonly inFlight: number;
  /** The time with at least one request in flight, in milliseconds. */
  readonly busyMs: number;
  readonly discards: number;
  readonly discardBytes: number;
  /** In milliseconds, as {@link readMs}. */
  readonly discardMs: number;
  readonly flushes: number;
  /** In milliseconds, as {@link readMs}. */
  readonly flushMs: number;
}

/** The unit of lengths in `stat`, in bytes, whatever the block size of the device. */
const SECTOR = 512;

/** The kernel's counters of a device; absent for a device without `/dev/ublkbN`. */
export function readDiskStat(id: number): DiskStat | undefined {
  try {
    return parseDiskStat(readFileSync(`/sys/block/ublkb${id}/stat`, 'utf8'));
  } catch {
    return undefined;
  }
}

/** The kernel's counters of a device; absent for a device without `/dev/ublkbN`. */
export type DiskStats = (id: number) => DiskStat | undefined;

/**
 * The kernel's counters of all ublk devices now, from `/proc/diskstats`: one file for any number of devices,
 * with the fields of `/sys/block/ublkbN/stat`.
 */
export function readDiskStats(read: () => string = readAll): DiskStats {
  const lines = read().matchAll(/^ *\d+ +\d+ ublkb(\d+) (.*)$/gm);
  const found = new Map([...lines].map(([, id, fields]) => [Number(id), fields!]));
  return (id) => {
    const fields = found.get(id);
    return fields === undefined ? undefined : parseDiskStat(fields);
  };
}

function readAll(): string {
  try {
    return readFileSync('/proc/diskstats', 'utf8');
  } catch {
    return '';
  }
}

/** Reads the fields of Documentation/block/stat.rst of the kernel. */
export function parseDiskStat(text: string): DiskStat {
  const fields = text.trim().split(/\s+/).map(Number);
  const field = (at: number): number => fields[at] ?? 0;
  return {
    reads: field(0),
    readBytes: field(2) * SECTOR,
    readMs: field(3),
    writes: field(4),
    writeBytes: field(6) * SECTOR,
    writeMs: field(7),
    inFlight: field(8),
    busyMs: field(9),
    discards: field(11),
    discardBytes: field(13) * SECTOR,
    discardMs: field(14),
    flushes: field(15),
    flushMs: field(16),
  };
}
