// `npm run bench -- [options]`

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { SignalError, VmError } from '../vm/index.ts';
import { breakDown, tellingRows } from './breakdowns.ts';
import { compareReports, differences, lowerOf, regressions } from './compare.ts';
import { type Row, chooseRows } from './matrix.ts';
import { readOthers } from './others.ts';
import { profile } from './profile/index.ts';
import { breakdownText, foldedLines } from './profile/tree.ts';
import { type Report, readReport } from './report.ts';
import { measure } from './run.ts';
import { saveReport } from './save.ts';
import { changeTable, resultTable } from './table.ts';
import { isOwn, takeOver } from './takeover.ts';

const EXAMPLES = `
Examples:
  npm run bench                                       the whole table, saved in docs/benchmarks
  npm run bench -- --quick --compare docs/benchmarks/report.json
  npm run bench -- --rows 'file auto.*qd32' --out target/bench/mine
  npm run bench -- --compare before.json after.json   compares only

The exit status is 1 when a row could not be measured, or costs over 3 % more than the one that it is
compared with, also when it is measured a second time; where kernel, fio or QEMU differ, rows are
compared all the same but nothing fails.`;

interface Flags {
  quick?: boolean;
  own?: boolean;
  rows?: RegExp;
  profile?: RegExp;
  native?: boolean;
  rounds?: number;
  kernel?: string;
  others?: string;
  compare?: string[];
  out?: string;
  json?: boolean;
}

/** Where the report lies that the repository keeps. */
const SAVED = 'docs/benchmarks';

const program: Command = new Command('npm run bench --')
  .description('Measure what an I/O costs: by default in instructions, the same at every run.')
  .option('--quick', 'only the rows that tell a regression')
  .option('--own', "only this project's rows; others' are taken over from the report that is there")
  .option('--rows <regexp>', 'only rows whose name matches, and what they stand against', pattern)
  .option('--native', 'real time, on this machine if its kernel has ublk, else in the test machine')
  .option('--rounds <n>', 'with --native: measure everything n times, in turn (default: 5)', whole)
  .option('--kernel <series>', 'kernel series of the test machine (default: 7.3)')
  .option('--profile <regexp>', 'where the instructions of the one row go that matches', pattern)
  .option('--others <path>', 'measure other servers too: a directory with kublk, or a JSON list')
  .option('--compare <report...>', 'one: compare the run with it; two: compare them, run nothing')
  .option('--out <dir>', 'where the report goes (default: docs/benchmarks if whole, target/bench)')
  .option('--json', 'print the report, or the comparison, as JSON')
  .addHelpText('after', EXAMPLES)
  .action(main);

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

function whole(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1.');
  return Number(text);
}

async function main(flags: Flags): Promise<void> {
  const [first, second, ...rest] = await Promise.all((flags.compare ?? []).map(readReport));
  if (rest.length > 0) program.error('error: --compare takes one report or two');
  if (first && second) return compare(first, second, flags);
  if (flags.rounds && !flags.native) {
    program.error('error: --rounds goes with --native; counted instructions repeat as they are');
  }
  if (flags.profile) return profileOne(flags.profile, flags);
  const report = await run(flags);
  if (flags.json) console.log(JSON.stringify(report, null, 2));
  else console.log(resultTable(report));
  if (first) compare(first, await secondLook(first, report, flags), { json: false });
}

/** Measures again what has regressed: now and then a row that is the same comes out higher. */
async function secondLook(before: Report, report: Report, flags: Flags): Promise<Report> {
  const suspects = regressions(before, report);
  if (suspects.size === 0) return report;
  console.error(`Once more, what costs over 3 % more than it did: ${[...suspects].join('; ')}`);
  const { others, native, rounds, kernel } = flags;
  const all = chooseRows({ others: others ? await readOthers(others) : [] });
  const rows = all.filter(({ id }) => suspects.has(id));
  const again = await measure(rows, {
    ...(native && { native }),
    ...(rounds && { rounds }),
    ...(kernel && { kernel }),
  });
  return lowerOf(report, again.report);
}

async function run(flags: Flags): Promise<Report> {
  const { quick, own, rows: filter, native, rounds = native ? 5 : 1, kernel } = flags;
  const others = flags.others ? await readOthers(flags.others) : [];
  const rows = chooseRows({ others, ...(quick && { quick }), ...(filter && { rows: filter }) });
  if (rows.length === 0) program.error(`error: no row's name matches ${filter}`);
  const whole = !quick && !filter && !native && !kernel;
  const dir = flags.out ?? (whole ? SAVED : 'target/bench');
  const before = own ? await readReport(join(SAVED, 'report.json')) : undefined;
  const measured = own ? rows.filter(({ subject }) => isOwn(subject)) : rows;
  const { report, failures } = await measure(measured, {
    rounds,
    onRow: progress(measured.length * rounds),
    ...(native && { native }),
    ...(kernel && { kernel }),
  });
  const telling = whole ? tellingRows(measured) : [];
  if (whole) console.error('Where the instructions go …');
  const { breakdowns, flames } = await breakDown(telling, kernel);
  if (whole) report.breakdowns = breakdowns;
  const all = before ? takeOver(report, before, rows) : report;
  await saveReport(all, dir, flames);
  console.error(`The report is in ${dir}.`);
  for (const { id, why } of failures) console.error(`error: not measured: ${id}: ${why}`);
  if (failures.length > 0) process.exitCode = 1;
  return all;
}

/** Prints how a row's instructions divide among functions, and saves it. */
async function profileOne(filter: RegExp, flags: Flags): Promise<void> {
  const { kernel, others, out = 'target/bench' } = flags;
  const rows = chooseRows({ others: others ? await readOthers(others) : [] }).filter(({ id }) =>
    filter.test(id),
  );
  const [row, ...rest] = rows;
  if (!row) program.error(`error: no row's name matches ${filter}`);
  if (rest.length > 0) {
    program.error(`error: several rows match ${filter}:\n${rows.map(({ id }) => id).join('\n')}`);
  }
  const { instructions, calls } = await profile(row, kernel);
  const text = `Instructions per I/O of ${row.id}\n\n${breakdownText(instructions, calls)}\n`;
  console.log(text);
  await mkdir(out, { recursive: true });
  const name = join(out, `profile ${row.id}`.replaceAll(/[^\w]+/g, '-'));
  await writeFile(`${name}.txt`, text);
  await writeFile(`${name}.folded`, `${foldedLines(instructions).join('\n')}\n`);
  console.error(`Saved as ${name}.txt, and for flame graph tools as ${name}.folded`);
}

/** Prints which row is being measured: on a terminal over the row before. */
function progress(total: number): (row: Row) => void {
  const { stderr } = process;
  let done = 0;
  return ({ id }) => {
    done += 1;
    const line = `[${String(done).padStart(String(total).length)}/${total}] ${id}`;
    if (!stderr.isTTY) stderr.write(`${line}\n`);
    else stderr.write(`\r\x1b[K${line}${done === total ? '\n' : ''}`);
  };
}

function compare(before: Report, after: Report, { json }: { json?: boolean }): void {
  const changes = compareReports(before, after);
  if (json) console.log(JSON.stringify(changes, null, 2));
  else console.log(`\nSince ${before.commit} (${before.date}):\n${changeTable(changes)}`);
  const other = differences(before, after);
  for (const difference of other) console.error(`note: ${difference}`);
  if (other.length > 0) {
    console.error(
      'note: measured under other circumstances, so no row counts as a regression; ' +
        'measure both again under the same, or renew the report that is compared with',
    );
  }
  if (regressions(before, after).size > 0) process.exitCode = 1;
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof SignalError) process.kill(process.pid, error.signal);
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = error instanceof VmError ? error.status : 1;
}
