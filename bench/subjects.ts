// What is measured: devices, and who serves them. Pure data, and functions of it.

import { WORKLOADS } from './workloads.ts';

/** One device, or several, and whoever serves them. */
export interface Subject {
  /** As `file auto per-io`. */
  name: string;
  kind: 'raw' | 'loop' | 'server' | 'other';
  /** Where the data is: `file` means a null_blk device that keeps it in memory. */
  target: 'file' | 'null';
  /** Hardware queues; in real time also clients. */
  queues: number;
  /** Names of the workloads it is measured with, in whole runs and in short ones. */
  workloads: { whole: readonly string[]; quick: readonly string[] };
  /** The subject that it stands against, as {@link subjectId} names it. */
  against?: string;
  /** What of the server it varies; absent for the subjects that everything is judged by. */
  varies?: 'settings' | 'scale' | 'handlers' | 'overlays';
  /** Devices that one process serves; each I/O goes to the next. Absent: 1. */
  devices?: number;
  /** For `server`: its options, as `name=value`. */
  options?: readonly string[];
  /**
   * For `server`: serves a file of a file system on the disk; before anything is measured, all blocks are
   * written over so many layers.
   */
  files?: { filled: number };
  /** Settings of the queue of the disk behind a `server`, as `name=value`. */
  backing?: readonly string[];
  /** The processor that the client stays on; absent: wherever the scheduler puts it. */
  client?: number;
  /** Processors of the machine, where one is made for it; absent: 2. */
  processors?: number;
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

export const BUFFERS = ['auto', 'register', 'split', 'copy'] as const;
export const EXCHANGES = ['per-io', 'batch'] as const;
/** What the server under test does without options, as its subjects' names say it. */
export const DEFAULT_MODE = 'auto batch';
export type Buffers = (typeof BUFFERS)[number];
export type Exchange = (typeof EXCHANGES)[number];

/** Requests in flight that every queue under test allows, unless that is what varies. */
export const QUEUE_DEPTH = 128;

const PAIR = ['4k randread qd1', '4k randread qd32'];
const MAIN = [...PAIR, '4k randwrite qd32', '1M read qd8', '1M write qd8'];
const DEPTHS = [...PAIR, '4k randread qd128', '4k randwrite qd32'];
const ALL = WORKLOADS.map(({ name }) => name).filter((name) => name !== '4k randread qd16');

/** The workloads of subjects by rank, from what users get to what only tells a detail. */
const MEASURED = {
  whole: {
    file: [ALL, MAIN, PAIR],
    null: [DEPTHS, PAIR],
    twoQueues: [[...PAIR, '4k randwrite qd32']],
  },
  // Large copies cost by as much more as memory is in pieces, so the short form has none.
  quick: { file: [MAIN, PAIR], null: [PAIR], twoQueues: [] },
} as const;

/** As `loop, 2 queues`: unique, and part of the names of its rows. */
export function subjectId({ name, queues }: Pick<Subject, 'name' | 'queues'>): string {
  return `${name}, ${queuesText(queues)}`;
}

export function queuesText(queues: number): string {
  return queues === 1 ? '1 queue' : `${queues} queues`;
}

/** Without an option but buffer mode, exchange and queues. */
export function mainSubjects(): Subject[] {
  return [...withQueues(1), ...withQueues(2)];
}

function withQueues(queues: number): Subject[] {
  return [
    reference('raw', 'raw', 'file', queues),
    reference('loop', 'loop', 'file', queues, 'raw'),
    ...servers('file', queues, 'loop'),
    reference('null_blk', 'raw', 'null', queues),
    ...servers('null', queues, 'null_blk'),
  ];
}

function reference(
  name: string,
  kind: 'raw' | 'loop',
  target: 'file' | 'null',
  queues: number,
  against?: string,
): Subject {
  const subject = { name, kind, target, queues, workloads: workloadsOf(target, queues, 0) };
  return against ? { ...subject, against: subjectId({ name: against, queues }) } : subject;
}

function servers(target: 'file' | 'null', queues: number, against: string): Subject[] {
  return BUFFERS.flatMap((buffers) =>
    EXCHANGES.map((exchange) => ({
      name: `${target} ${buffers} ${exchange}`,
      kind: 'server' as const,
      target,
      queues,
      workloads: workloadsOf(target, queues, rankOf(buffers, exchange)),
      against: subjectId({ name: against, queues }),
      options: [`buffers=${buffers}`, `exchange=${exchange}`],
    })),
  );
}

export function otherSubject(other: Other): Subject {
  const { name, target } = other;
  const against = subjectId({ name: target === 'null' ? 'null_blk' : 'loop', queues: 1 });
  const workloads = { whole: target === 'null' ? DEPTHS : MAIN, quick: PAIR };
  const kind = 'other' as const;
  return { name: `${target} by ${name}`, kind, target, queues: 1, workloads, against, other };
}

function workloadsOf(target: 'file' | 'null', queues: number, rank: number): Subject['workloads'] {
  const list = queues > 1 ? 'twoQueues' : target;
  const names = (plan: 'whole' | 'quick'): readonly string[] => MEASURED[plan][list][rank] ?? [];
  return { whole: names('whole'), quick: names('quick') };
}

/** A buffer mode that is not the default tells less, an exchange beside it less again. */
function rankOf(buffers: Buffers, exchange: Exchange): number {
  if (buffers === 'auto') return 0;
  return (buffers === 'split' ? 2 : 1) + (exchange === 'per-io' ? 0 : 1);
}
