// `npm test`: every check of this checkout, from formatters to the real kernel.
//
//   npm test                        all stages
//   npm test -- unit kernel         only these
//   npm test -- --list              what there is

import { performance } from 'node:perf_hooks';
import { stripVTControlCharacters, styleText } from 'node:util';
import { execa } from 'execa';
import { KERNELS, TEST_PACKAGES, VM_PACKAGES, kernelHasUblk } from '../vm/index.ts';
import { CEPH_PACKAGES } from './ceph/cluster.ts';
import { ensurePackages, findProgram } from './debian.ts';
import { kernelHeaders } from './headers.ts';
import { otherNodes } from './node.ts';
import { promtool } from './promtool.ts';
import { runAll, type Scheduled } from './schedule.ts';

interface Stage extends Scheduled {
  what: string;
  /** Only when it is named: not one of those that a checkout must pass every time. */
  byName?: boolean;
  /** The Debian packages that the stage needs, beside those for building and for test machines. */
  packages?: readonly string[];
  /** @param part The number of this run, from 0, of a stage with several parts. */
  run(part: number): Promise<void>;
}

type CommandError = Error & { all?: string };

interface Failure {
  stage: Stage;
  /** The stage's name, and the part. */
  name: string;
  /** The last lines of the command that failed; none where a person has seen them go by. */
  end: string[];
}

/** Stages at a time: cargo and a test machine keep one processor busy, most of the time. */
const PLACES = 2;
/** The test machines that share the tests on the newest kernel. */
const MACHINES = 2;
const BASELINE = 'docs/benchmarks/report.json';
const OLDER = KERNELS.slice(1);
const OLDEST = KERNELS.at(-1)!;
const BUILD_PACKAGES = ['gcc', 'libc6-dev'];
const EXPORT_PACKAGES = ['fio', 'libnbd-bin', 'openssl', 'python3-libnbd', 'qemu-utils'];
const SHELL_PACKAGES = ['bash', 'zsh', 'fish', 'mandoc'];

const CORE = ['ublk-core', 'ublk-overlay', 'ublk-nbd', 'ublk-qcow2', 'ublk-tls'];

const TEE: ['inherit', 'pipe'] = ['inherit', 'pipe'];
/** How much of a failed command's output is said again at the end: of a log only that may be kept. */
const LAST_LINES = 25;
const LINE_WIDTH = 300;
/** How long a test machine may run: most of what CI allows, since a loaded host is half as fast. */
const MACHINE_SECONDS = 3300;
/** The line after which the tests' own reporter names those that failed. */
const FAILURES = /^\s*Failed:$/;

const STAGES: Stage[] = [
  {
    name: 'format',
    what: 'prettier and rustfmt agree with every file',
    async run() {
      await show('npx', ['prettier', '--check', '--log-level=warn', '.']);
      await show('cargo', ['fmt', '--all', '--check']);
    },
  },
  {
    name: 'lint',
    what: 'oxlint, the TypeScript compiler and clippy have nothing to say',
    async run() {
      await show('npx', ['oxlint', '--deny-warnings']);
      await show('npx', ['tsc', '--noEmit']);
      const deny = ['--', '-D', 'warnings'];
      const binding = 'ublk-node'; // has no tests, and its exports count as unused in a test build
      const others = ['--workspace', '--exclude', binding, '--all-targets'];
      await show('cargo', ['clippy', ...others, ...deny]);
      await show('cargo', ['clippy', '-p', binding, ...deny]);
    },
  },
  {
    name: 'docs',
    what: 'the documentation site builds: every link has a page, every public item its types',
    run: () => show('npm', ['run', '-s', 'docs']),
  },
  {
    name: 'headers',
    what: "ublk-sys says what the kernel's own newest header says",
    after: ['lint'], // cargo would wait for its lock
    async run() {
      const UBLK_UAPI_INCLUDE = await kernelHeaders();
      const test = ['test', '-p', 'ublk-sys', '--features', 'header-test'];
      await show('cargo', test, { UBLK_UAPI_INCLUDE });
    },
  },
  {
    name: 'core',
    what: 'cargo tests: scenarios on the simulated driver, power cuts of overlay files',
    after: ['headers'], // cargo would wait for its lock
    packages: ['qemu-utils'],
    run: () => show('cargo', ['test', ...CORE.flatMap((name) => ['-p', name])]),
  },
  {
    name: 'build',
    what: 'the addon and dist',
    run: () => show('npm', ['run', '-s', 'build']),
  },
  {
    name: 'unit',
    what: 'vitest without a kernel that has ublk',
    after: ['build'],
    packages: SHELL_PACKAGES,
    async run() {
      const env: Record<string, string> = {};
      try {
        env['UBLK_PROMTOOL'] = await promtool();
      } catch (error) {
        // The tests that need it are skipped, and say so.
        console.error(`no promtool: ${error instanceof Error ? error.message : String(error)}`);
      }
      await show('npx', ['vitest', 'run', '--project', 'unit'], env);
    },
  },
  {
    name: 'export',
    what: 'vitest: exports on io_uring of this machine, used by nbdcopy, qemu and fio',
    after: ['unit'], // both start many processes
    packages: [...EXPORT_PACKAGES, ...CEPH_PACKAGES],
    run: () => show('npx', ['vitest', 'run', '--project', 'export']),
  },
  {
    name: 'ceph',
    what: 'vitest on a Ceph cluster of Debian packages, in the test machine',
    after: ['build'],
    packages: [...TEST_PACKAGES, ...CEPH_PACKAGES],
    run: () => testOnKernel([], { UBLK_TEST_MATRIX: 'ceph' }),
  },
  {
    name: 'kernel',
    what: 'vitest on a kernel that has ublk, in the test machine unless this one has it',
    after: ['build'],
    packages: TEST_PACKAGES,
    parts: MACHINES,
    run: (part) => onNewestKernel('short', part),
  },
  {
    name: 'kernel-long',
    what: 'the rest of these: commands, ends of processes, examples, many cycles; only when named',
    byName: true,
    after: ['build'],
    packages: [...TEST_PACKAGES, 'tmux'],
    parts: MACHINES,
    run: (part) => onNewestKernel('long', part),
  },
  {
    name: 'platforms',
    what: 'the addon for four platforms, and what would be published; only when named',
    byName: true,
    after: ['build'],
    run: async () => {
      await show('npx', ['tsx', 'scripts/platforms.ts']);
      await show('npx', ['tsx', 'scripts/release.ts', '--dry-run']);
    },
  },
  {
    name: 'systemd',
    what: 'machines with systemd and a ublk disk in fstab: boot, death, reload, end; only when named',
    byName: true,
    after: ['build'],
    packages: [...TEST_PACKAGES, 'systemd'],
    run: () => show('npx', ['vitest', 'run', '--project', 'systemd']),
  },
  stageOn(OLDEST),
  {
    name: 'bench',
    what: 'no I/O costs over 3 % more instructions than docs/benchmarks says',
    after: ['build'], // instructions are counted, not timed: another stage may run beside this one
    run: () => show('npm', ['run', '-s', 'bench', '--', '--quick', '--compare', BASELINE]),
  },
  {
    name: 'package',
    what: 'the packed packages install, compile and run without Rust',
    after: ['build'],
    run: () => show('npx', ['vitest', 'run', '--project', 'package']),
  },
  ...OLDER.flatMap(stagesOn),
];

function stageOn(series: string): Stage {
  return {
    name: `kernel-${series}`,
    what: `what of these depends most on the kernel, on Linux ${series}`,
    after: ['build'],
    packages: TEST_PACKAGES,
    run: () => onOlderKernel(series, 'brief'),
  };
}

function stagesOn(series: string): Stage[] {
  const brief = { ...stageOn(series), byName: true };
  const whole = {
    name: `kernel-${series}-whole`,
    what: `all of these that depends on the kernel, on Linux ${series}; only when named`,
    byName: true,
    after: ['build'],
    packages: TEST_PACKAGES,
    run: () => onOlderKernel(series, 'whole'),
  };
  return series === OLDEST
    ? [whole]
    : [{ ...brief, what: `${brief.what}; only when named` }, whole];
}

/** One machine's part of the tests; a running kernel that has ublk is the only machine. */
async function onNewestKernel(matrix: 'short' | 'long', part: number): Promise<void> {
  const nodes = matrix === 'long' ? { UBLK_NODES: await otherNodes() } : {};
  const env = { UBLK_TEST_MATRIX: matrix, ...nodes };
  if (!(await kernelHasUblk())) {
    return testOnKernel([], env, [`--shard=${part + 1}/${MACHINES}`]);
  }
  if (part === 0) await testOnKernel([], env);
}

async function onOlderKernel(series: string, matrix: 'brief' | 'whole'): Promise<void> {
  await testOnKernel(['--kernel', series], { UBLK_TEST_MATRIX: matrix });
}

async function testOnKernel(
  machine: string[],
  env: Record<string, string>,
  which: string[] = [],
): Promise<void> {
  const vitest = ['npx', 'vitest', 'run', '--project', 'kernel', ...which];
  const limit = ['--timeout', String(MACHINE_SECONDS)];
  await show('npm', ['run', '-s', 'vm', '--', ...limit, ...machine, ...vitest], env);
}

async function show(program: string, args: string[], env: Record<string, string> = {}) {
  console.log(styleText('dim', `$ ${program} ${args.join(' ')}`));
  const { isTTY } = process.stdout;
  if (isTTY) await execa(program, args, { stdio: ['ignore', 'inherit', 'inherit'], env });
  else await execa(program, args, { stdio: ['ignore', TEE, TEE], all: true, env });
}

function chosen(names: string[]): Stage[] {
  return names.map((name) => {
    const stage = STAGES.find((candidate) => candidate.name === name);
    if (!stage) {
      const known = STAGES.map((candidate) => candidate.name).join(', ');
      console.error(`error: there is no stage '${name}'; there are ${known}`);
      process.exit(2);
    }
    return stage;
  });
}

/** Runs a stage, or one of its parts, and notes in `failed` how that failed. */
async function runStage(stage: Stage, part: number, failed: Failure[]): Promise<void> {
  const parts = stage.parts ?? 1;
  const name = parts > 1 ? `${stage.name} ${part + 1}/${parts}` : stage.name;
  console.log(styleText('bold', `\n── ${name}: ${stage.what}`));
  const start = performance.now();
  let verdict = styleText('green', 'passed');
  try {
    await stage.run(part);
  } catch (error) {
    const { message, all } = error as CommandError;
    console.error(styleText('red', message.split('\n', 1)[0]!));
    failed.push({ stage, name, end: lastLines(all) });
    verdict = styleText('red', 'FAILED');
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`${name} ${verdict} in ${seconds} s`);
}

/** What tests name as failed; where they do not, the last lines. */
function lastLines(output = ''): string[] {
  const lines = stripVTControlCharacters(output).trimEnd().split('\n');
  const failures = lines.findLastIndex((line) => FAILURES.test(line));
  if (failures < 0) return lines.slice(-LAST_LINES);
  return lines.slice(failures, failures + LAST_LINES).map((line) => line.slice(0, LINE_WIDTH));
}

function showAgain({ name, end }: Failure): void {
  if (end.length > 0) console.log(`\n── the end of ${name}, which failed:\n${end.join('\n')}`);
}

const args = process.argv.slice(2);
if (args.some((arg) => arg.startsWith('-'))) {
  const [first] = args;
  const known = first === '--list' || first === '--help';
  console.log('usage: npm test [-- STAGE…]\n');
  for (const { name, what } of STAGES) console.log(`  ${name.padEnd(17)} ${what}`);
  process.exit(known ? 0 : 2);
}

const stages = args.length > 0 ? chosen(args) : STAGES.filter(({ byName }) => !byName);
if (!findProgram('cargo')) {
  console.error('error: cargo is missing; install Rust (rustup, or the Debian package rustup)');
  process.exit(1);
}
const packages = stages.flatMap((stage) => stage.packages ?? []);
await ensurePackages(
  [...new Set([...BUILD_PACKAGES, ...VM_PACKAGES, ...packages])],
  'build and test this checkout',
);
const failed: Failure[] = [];
await runAll(stages, PLACES, (stage, part) => runStage(stage, part, failed));
for (const failure of failed) showAgain(failure);
if (failed.length > 0) {
  console.log(styleText('red', `\nfailed: ${failed.map(({ name }) => name).join(', ')}`));
}
const bad = new Set(failed.map(({ stage }) => stage)).size;
console.log(`\nstages: ${stages.length - bad} passed, ${bad} failed`);
process.exitCode = failed.length > 0 ? 1 : 0;
