// The shell scripts that measure rows: calls of the functions of guest.sh. Pure.

import { fileURLToPath } from 'node:url';
import { quote } from '../vm/job.ts';
import type { Row } from './matrix.ts';
import { QUEUE_DEPTH, type Subject } from './subjects.ts';
import type { Workload } from './workloads.ts';

export interface ScriptOptions {
  /** The path of the server under test. */
  server: string;
  /** How often everything is measured, in turn. */
  rounds: number;
  /** Seconds that a row is measured for; absent: its workload's count of I/Os. */
  seconds?: number;
}

const LOAD = `. ${quote(fileURLToPath(new URL('guest.sh', import.meta.url)))}`;

/** Rows by their index, which names them. Those of one subject must be beside each other. */
export function measuringScript(
  rows: readonly (readonly [number, Row])[],
  options: ScriptOptions,
): string {
  const lines = [LOAD, 'prepare'];
  let subject: Subject | undefined;
  for (let round = 0; round < options.rounds; round++) {
    for (const [index, row] of rows) {
      if (subject !== row.subject) lines.push('end', begin(row.subject, options.server));
      subject = row.subject;
      lines.push(measure(index, row, options));
    }
    subject = undefined;
  }
  return `${lines.join('\n')}\n`;
}

/** The script that counts one row's instructions function by function. */
export function profilingScript({ subject, workload }: Row, server: string): string {
  const options = fioOptions(workload, 1, subject.client).join(' ');
  const call = `profile ${quote(server)} ${workload.count} ${options}`;
  return `${[LOAD, 'prepare', begin(subject, server), call].join('\n')}\n`;
}

function begin(subject: Subject, server: string): string {
  const { kind, target, queues, devices = 1, options = [], backing = [], files, other } = subject;
  if (other) {
    const { device, start, stop, program = '' } = other;
    return `begin_other ${[device, start, stop, program].map(quote).join(' ')}`;
  }
  if (kind === 'loop') return 'begin_loop';
  if (kind === 'raw') return `device=$${target === 'null' ? 'nothing' : 'backing'}`;
  const data = target === 'null' ? 'null' : '"$backing"';
  const always = [`target=${data}`, `queues=${queues}`, `depth=${QUEUE_DEPTH}`];
  const many = devices > 1 ? [`devices=${devices}`] : [];
  if (files) {
    const call = ['begin_server', quote(server), ...options, ...always.slice(1)].join(' ');
    return `with_files\n${call}\nfill ${files.filled}`;
  }
  const tune = backing.length > 0 ? `tune ${backing.join(' ')}\n` : '';
  return tune + ['begin_server', quote(server), ...always, ...many, ...options].join(' ');
}

function measure(index: number, { subject, workload }: Row, { seconds }: ScriptOptions): string {
  const [warm, main] = seconds
    ? ['--time_based --runtime=300ms', `--time_based --runtime=${seconds}`]
    : [`--number_ios=${Math.ceil(workload.count / 10)}`, `--number_ios=${workload.count}`];
  // A machine that counts instructions runs one processor at a time, for up to 100 ms: two clients
  // would not run beside but after each other.
  const clients = seconds ? subject.queues : 1;
  const fio = fioOptions(workload, clients, subject.client).join(' ');
  return `row ${index} ${quote(warm)} ${quote(main)} ${fio}`;
}

/** `place`: the processor that fio stays on, if it does. */
function fioOptions(
  { size, pattern, depth }: Workload,
  clients: number,
  place: number | undefined,
): string[] {
  return [
    `--rw=${pattern}`,
    `--bs=${size}`,
    `--iodepth=${depth}`,
    ...(clients > 1 ? [`--numjobs=${clients}`] : []),
    ...(place === undefined ? [] : [`--cpus_allowed=${place}`]),
    ...(size === '4k' ? [] : ['--iomem=mmaphuge', '--hugepage-size=2m']),
  ];
}
