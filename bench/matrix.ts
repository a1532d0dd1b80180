// What is measured: which servers, with which requests. Pure data, and functions of it.

/** What fio asks for. */
export interface Workload {
  /** As `4k randread qd32`. */
  name: string;
  size: '4k' | '64k' | '1M';
  pattern: 'randread' | 'randwrite' | 'read' | 'write';
  /** Requests that each client keeps in flight. */
  depth: number;
  /** I/Os measured where instructions are counted. Every row's result moves with it: keep it. */
  count: number;
}

/** One device, and whoever serves it. */
export interface Subject {
  /** As `file auto per-io`. */
  name: string;
  kind: 'raw' | 'loop' | 'server' | 'other';
  /** Where the data is: `file` means a null_blk device that keeps it in memory. */
  target: 'file' | 'null';
  /** Hardware queues; in real time also clients. */
  queues: number;
  /** The name of the subject that it stands against. */
  against?: string;
  /** For `server`: its buffer mode and exchange. */
  buffers?: Buffers;
  exchange?: Exchange;
  /** For `other`: how it is started and stopped, in shell. */
  other?: Other;
}

/** A server of somebody else's, measured in the same run. `start` ends when `device` is there. */
export interface Other {
  name: string;
  target: 'file' | 'null';
  device: string;
  start: string;
  stop: string;
  /** The path of the program that serves, for a breakdown of its instructions. */
  program?: string;
}

export interface Row {
  /** Names the row in every report. */
  id: string;
  subject: Subject;
  workload: Workload;
  /** The id of the row that it stands against. */
  against?: string;
}

export const BUFFERS = ['auto', 'register', 'split', 'copy'] as const;
export const EXCHANGES = ['per-io', 'batch'] as const;
export type Buffers = (typeof BUFFERS)[number];
export type Exchange = (typeof EXCHANGES)[number];

/** Requests in flight that every queue under test allows. */
export const QUEUE_DEPTH = 128;

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

const PAIR = ['4k randread qd1', '4k randread qd32'];
const TRIO = [...PAIR, '1M read qd8'];
const MAIN = [...TRIO, '4k randwrite qd32', '1M write qd8'];
const DEPTHS = [...PAIR, '4k randread qd128', '4k randwrite qd32'];
const ALL = WORKLOADS.map(({ name }) => name);

/** The workloads of subjects by rank, from what users get to what only tells a detail. */
const MEASURED = {
  whole: {
    file: [ALL, MAIN, PAIR],
    null: [DEPTHS, PAIR],
    twoQueues: [[...PAIR, '4k randwrite qd32']],
  },
  quick: { file: [MAIN, TRIO], null: [PAIR], twoQueues: [] },
} as const;

export interface Choice {
  /** Only the rows that tell a regression. */
  quick?: boolean;
  /** Only rows whose id matches, and those that they stand against. */
  rows?: RegExp;
  others?: readonly Other[];
}

/** The rows to measure, those of one subject beside each other. */
export function chooseRows({ quick = false, rows: filter, others = [] }: Choice = {}): Row[] {
  const rows = [...subjects(), ...others.map(otherSubject)].flatMap((subject) =>
    workloadsOf(subject, quick).map((workload) => toRow(subject, workload)),
  );
  if (!filter) return rows;
  const matching = rows.filter((row) => filter.test(row.id));
  const wanted = new Set(matching.flatMap((row) => [row.id, row.against]));
  return rows.filter((row) => wanted.has(row.id));
}

function subjects(): Subject[] {
  const list: Subject[] = [];
  for (const queues of [1, 2]) {
    list.push({ name: 'raw', kind: 'raw', target: 'file', queues });
    list.push({ name: 'loop', kind: 'loop', target: 'file', queues, against: 'raw' });
    list.push(...servers('file', queues, 'loop'));
    list.push({ name: 'null_blk', kind: 'raw', target: 'null', queues });
    list.push(...servers('null', queues, 'null_blk'));
  }
  return list;
}

function servers(target: 'file' | 'null', queues: number, against: string): Subject[] {
  return BUFFERS.flatMap((buffers) =>
    EXCHANGES.map((exchange) => {
      const name = `${target} ${buffers} ${exchange}`;
      return { name, kind: 'server' as const, target, queues, against, buffers, exchange };
    }),
  );
}

function otherSubject(other: Other): Subject {
  const against = other.target === 'null' ? 'null_blk' : 'loop';
  const { name, target } = other;
  return { name: `${target} by ${name}`, kind: 'other', target, queues: 1, against, other };
}

function workloadsOf(subject: Subject, quick: boolean): Workload[] {
  const plan = MEASURED[quick ? 'quick' : 'whole'];
  const lists = subject.queues > 1 ? plan.twoQueues : plan[subject.target];
  const names: readonly string[] = lists[rankOf(subject)] ?? [];
  return WORKLOADS.filter(({ name }) => names.includes(name));
}

/** A buffer mode that is not the default tells less, an exchange beside it less again. */
function rankOf({ buffers = 'auto', exchange = 'per-io' }: Subject): number {
  if (buffers === 'auto') return 0;
  return (buffers === 'split' ? 2 : 1) + (exchange === 'per-io' ? 0 : 1);
}

function toRow(subject: Subject, workload: Workload): Row {
  const id = (name: string) => `${name}, ${queuesText(subject.queues)}, ${workload.name}`;
  const row = { id: id(subject.name), subject, workload };
  return subject.against ? { ...row, against: id(subject.against) } : row;
}

export function queuesText(queues: number): string {
  return queues === 1 ? '1 queue' : `${queues} queues`;
}
