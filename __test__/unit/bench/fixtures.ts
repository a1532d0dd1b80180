import type { Report, ReportRow } from '../../../bench/report.ts';

/** A report of these rows. */
export function reportOf(rows: Report['rows'], more: Partial<Report> = {}): Report {
  return {
    format: 1,
    clock: 'instructions',
    date: '2026-11-23',
    commit: 'c0ffee',
    kernel: '7.3.4',
    fio: 'fio-3.33',
    machine: 'QEMU 7.2',
    rounds: 1,
    rows,
    ...more,
  };
}

/** What a row measured that costs so much. */
export function valuesOf(cost: number): ReportRow['values'] {
  return { cost, iops: 1e9 / cost, meanLatencyNs: 1, p99LatencyNs: 1, cpuSecondsPerIo: 1 };
}
