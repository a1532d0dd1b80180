// The subjects of the measurement: devices and their servers. Pure data, and functions of the data.

import { WORKLOADS } from './workloads.ts';

/** A device, or several devices, and their server. */
export interface Subject {
  /** As `file auto per-io`. */
  name: string;
  kind: 'raw' | 'loop' | 'server' | 'other';
  /** The place of the data: `file` means a null_blk device with its data in memory. */
  target: 'file' | 'null';
  /** Hardware queues; in real time also clients. */
  queues: number;
  /** Names of the workloads for this subject, in whole runs and in short runs. */
  workloads: { whole: readonly string[]; quick: readonly string[] };
  /** The subject to compare with, as {@link subjectId} names the subject. */
  against?: string;
  /**
   * The varied aspect of the server; absent for the main subjects, the basis of all comparisons.
   */
  varies?: 'settings' | 'scale' | 'handlers' | 'overlays';
  /** Devices served by the process; each I/O goes to the next device. Absent: 1. */
  devices?: number;
  /** For `server`: options, as `name=value`. */
  options?: readonly string[];
  /**
   * For `server`: serves a file of a file system on the disk; before the measurement, all blocks
   * are written across `filled` layers.
   */
  files?: { filled: number };
  /** Settings of the queue of the disk behind a `server`, as `name=value`. */
  backing?: readonly string[];
  /** The processor of the client; absent: the scheduler's choice. */
  client?: number;
  /** Processors of the machine, where a machine is made for the subject; absent: 2. */
  processors?: number;
  /** For `other`: how to start and stop the server, in shell. */
  other?: Other;
}

/** Another project's server, measured in the same run. `start` ends when `device` exists. */
export interface Other {
  name: string;
  target: 'file' | 'null';
  device: string;
  start: string;
  stop: string;
  /** The path of the server's program, for a breakdown of the instructions. */
  program?: string;
}

export const BUFFERS = ['auto', 'register', 'split', 'copy'] as const;
export const EXCHANGES = ['per-io', 'batch'] as const;
/** The server's mode without options, in the words of the subjects' names. */
export const DEFAULT_MODE = 'auto batch';
export type Buffers = (typeof BUFFERS)[number];
export type Exchange = (typeof EXCHANGES)[number];

/** The depth of every queue under test, unless the subject varies the depth. */
export const QUEUE_DEPTH = 128;

const PAIR = ['4k randread qd1', '4k randread qd32'];
const MAIN = [...PAIR, '4k randwrite qd32', '1M read qd8', '1M write qd8'];
const DEPTHS = [...PAIR, '4k randread qd128', '4k randwrite qd32'];
const ALL = WORKLOADS.map(({ name }) => name).filter((name) => name !== '4k randread qd16');

/** The workloads of subjects by rank, from the users' main concerns to mere details. */
const MEASURED = {
  whole: {
    file: [ALL, MAIN, PAIR],
    null: [DEPTHS, PAIR],
    twoQueues: [[...PAIR, '4k randwrite qd32']],
  },
  // Large copies cost by as much more as memory is in pieces, so the short form has none.
  quick: { file: [MAIN, PAIR], null: [PAIR], twoQueues: [] },
} as const;

/** As `loop, 2 queues`: unique, and part of the names of the subject's rows. */
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

/**
 * The rank: 0 for the default buffer mode; other buffer modes tell less, and with `batch` less
 * again.
 */
function rankOf(buffers: Buffers, exchange: Exchange): number {
  if (buffers === 'auto') return 0;
  return (buffers === 'split' ? 2 : 1) + (exchange === 'per-io' ? 0 : 1);
}
