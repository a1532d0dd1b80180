// The requests that fio makes. Pure data.

/** What fio asks for. */
export interface Workload {
  /** As `4k randread qd32`. */
  name: string;
  size: '4k' | '64k' | '1M';
  pattern: 'randread' | 'randwrite' | 'read' | 'write';
  /** Requests that each client keeps in flight, over all devices. */
  depth: number;
  /** I/Os measured where instructions are counted. Every row's result moves with it: keep it. */
  count: number;
}

const random = (pattern: 'randread' | 'randwrite', depth: number, count: number): Workload => ({
  name: `4k ${pattern} qd${depth}`,
  size: '4k',
  pattern,
  depth,
  count,
});
const sequential = (size: '64k' | '1M', pattern: 'read' | 'write', count: number): Workload => ({
  name: `${size} ${pattern} qd8`,
  size,
  pattern,
  depth: 8,
  count,
});

export const WORKLOADS: readonly Workload[] = [
  random('randread', 1, 12_000),
  random('randread', 16, 20_000),
  random('randread', 32, 20_000),
  random('randread', 128, 20_000),
  random('randwrite', 1, 12_000),
  random('randwrite', 32, 20_000),
  random('randwrite', 128, 20_000),
  sequential('64k', 'read', 4000),
  sequential('64k', 'write', 4000),
  sequential('1M', 'read', 256),
  sequential('1M', 'write', 256),
];
