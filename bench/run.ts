// Measures rows, in the test machine or right here.

import { PassThrough } from 'node:stream';
import { createInterface } from 'node:readline';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { TEST_PACKAGES, kernelHasUblk, runInVm } from '../vm/index.ts';
import { ensurePackages } from '../scripts/debian.ts';
import type { Row } from './matrix.ts';
import { type Report, reportRows } from './report.ts';
import { measuringScript } from './script.ts';
import { Transcript } from './transcript.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SERVER = 'ublk-bench-server';

export interface RunOptions {
  /** Real time instead of counted instructions: on this machine if its kernel has ublk. */
  native?: boolean;
  /** How often every row is measured; more than once only makes sense in real time. */
  rounds?: number;
  /** Kernel series of the test machine. */
  kernel?: string;
  /** A row is being measured now. */
  onRow?: (row: Row) => void;
}

interface Machine {
  icount: boolean;
  kernel?: string | undefined;
  processors?: number;
  /** Further arguments for QEMU. */
  qemu?: readonly string[];
}

export interface RunResult {
  report: Report;
  /** Rows that could not be measured, and why. */
  failures: { id: string; why: string }[];
}

/** Rejects when nothing could be measured at all. */
export async function measure(rows: readonly Row[], options: RunOptions = {}): Promise<RunResult> {
  const { native = false, rounds = 1, kernel, onRow } = options;
  await ensurePackages([...TEST_PACKAGES, 'dmsetup'], 'measure with fio');
  const server = await buildServer();
  const transcript = new Transcript({ row: (index) => onRow?.(rows[index]!) });
  let status = 0;
  for (const [processors, some] of byMachine(rows)) {
    const script = measuringScript(some, { server, rounds, ...(native && { seconds: 2 }) });
    const machine = { icount: !native, kernel, processors };
    status ||= await runScript(script, (line) => transcript.read(line), machine);
  }
  const report: Report = {
    format: 1,
    clock: native ? 'time' : 'instructions',
    date: new Date().toISOString().slice(0, 10),
    commit: await commit(),
    kernel: transcript.kernel,
    fio: transcript.fio,
    machine: await machine(native),
    rounds,
    rows: reportRows(rows, transcript.measurements),
  };
  if (status !== 0 || report.rows.length === 0) {
    const [why = 'see what it said above'] = transcript.failures.values();
    throw new Error(`The measuring script ended with status ${status} (${why}).`);
  }
  const failures = [...transcript.failures].map(([index, why]) => ({ id: rows[index]!.id, why }));
  return { report, failures };
}

/** Rows, with their indices, by the number of processors that they are measured on. */
function byMachine(rows: readonly Row[]): Map<number, [number, Row][]> {
  const machines = new Map<number, [number, Row][]>();
  rows.forEach((row, index) => {
    const { processors = 2 } = row.subject;
    const some = machines.get(processors) ?? [];
    machines.set(processors, [...some, [index, row]]);
  });
  return machines;
}

/** Builds the server under test; resolves with its path. */
export async function buildServer(): Promise<string> {
  const build = ['build', '--release', '--message-format=json', '-p', SERVER];
  const { stdout } = await execa('cargo', build, { cwd: ROOT, stderr: 'inherit' });
  const executables = stdout.split('\n').flatMap((line) => {
    const { executable } = JSON.parse(line || '{}') as { executable?: string };
    return executable ?? [];
  });
  const [path] = executables;
  if (!path) throw new Error(`cargo built no program ${SERVER}.`);
  return path;
}

/** Runs a shell script as root on a kernel that has ublk; resolves with its exit status. */
export async function runScript(
  script: string,
  onLine: (line: string) => void,
  { kernel, processors, ...options }: Machine,
): Promise<number> {
  const stdout = new PassThrough();
  const lines = createInterface({ input: stdout });
  lines.on('line', onLine);
  const { status } = await runInVm({
    command: ['sh', '-c', script],
    cwd: ROOT,
    stdout,
    ...(kernel && { kernel }),
    ...(processors && { cpus: processors }),
    ...options,
    timeout: 2 * 3600,
  });
  const closed = new Promise((resolve) => lines.once('close', resolve));
  stdout.end();
  await closed;
  return status;
}

async function commit(): Promise<string> {
  const git = (...args: string[]) => execa('git', args, { cwd: ROOT, reject: false });
  const { stdout, exitCode } = await git('rev-parse', '--short=12', 'HEAD');
  if (exitCode !== 0) return 'unknown';
  const { stdout: changed } = await git('status', '--porcelain', '--untracked-files=no');
  return changed ? `${stdout} with changes` : stdout;
}

async function machine(native: boolean): Promise<string> {
  const host = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}`;
  if (native) return (await kernelHasUblk()) ? host : `the test machine on ${host}`;
  const { stdout } = await execa('qemu-system-x86_64', ['--version'], { reject: false });
  const version = /version (\S+)/.exec(stdout ?? '')?.[1] ?? '';
  return `QEMU ${version}, 2 processors that count instructions`;
}
