import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { type Row, chooseRows } from '../../../bench/matrix.ts';
import { measuringScript, profilingScript } from '../../../bench/script.ts';
import type { Other } from '../../../bench/subjects.ts';

const options = { server: '/bin/server', rounds: 1 };
const scriptOf = (rows: readonly Row[], more: object = {}) =>
  measuringScript([...rows.entries()], { ...options, ...more });
const ids = (choice: Parameters<typeof chooseRows>[0]) => chooseRows(choice).map(({ id }) => id);

/** The words of each call in a measuring script, as a shell sees them. */
function calls(script: string): string[][] {
  const spy = ['begin_server', 'begin_loop', 'begin_other', 'tune', 'end', 'row', 'prepare']
    .map((name) => `${name}() { printf '%s\\037' ${name} "$@"; echo; }\n`)
    .join('');
  const body = script.replace(/^\. .*\n/, 'backing=/dev/backing\n');
  const text = execFileSync('sh', { input: spy + body, encoding: 'utf8' });
  return text.split('\n').map((line) => line.split('\x1f').slice(0, -1));
}

test('the disk behind a server is tuned before the server begins', () => {
  const rows = chooseRows({ rows: /^file auto batch \S+ \S+ \S+ on both disks.* qd1$/ });
  const said = calls(scriptOf(rows)).map(([name, ...args]) => [name, args.slice(0, 2)]);
  const tune = said.findIndex(([name]) => name === 'tune');
  expect(said[tune]).toEqual(['tune', ['nomerges=2', 'iostats=0']]);
  expect(said[tune + 1]![0]).toBe('begin_server');
});

test('a client that stays on a processor does so under the profiler too', () => {
  const [row] = chooseRows({ rows: /^file auto batch on the CPU of its client, .* qd1$/ }).slice(
    -1,
  );
  for (const script of [scriptOf([row!]), profilingScript(row!, '/bin/server')]) {
    expect(script).toContain('affinity=0');
    expect(script).toContain('--cpus_allowed=0');
  }
});

test('every row has a name of its own', () => {
  const all = ids({});
  expect(new Set(all).size).toBe(all.length);
});

test('a short run measures rows of the whole table, and fewer', () => {
  const all = ids({});
  const quick = ids({ quick: true });
  expect(all).toEqual(expect.arrayContaining(quick));
  expect(quick.length).toBeLessThan(all.length / 2);
});

test('every row stands against one that is measured too', () => {
  for (const quick of [true, false]) {
    const rows = chooseRows({ quick });
    const known = new Set(rows.map(({ id }) => id));
    const wanted = rows.flatMap(({ against }) => against ?? []);
    expect(wanted.filter((id) => !known.has(id))).toEqual([]);
  }
});

test('a filter keeps what its rows stand against', () => {
  expect(ids({ rows: /^file auto per-io, 1 queue, 4k randread qd1$/ })).toEqual([
    'loop, 1 queue, 4k randread qd1',
    'file auto per-io, 1 queue, 4k randread qd1',
  ]);
});

test('a server is started once for all of its rows', () => {
  const rows = chooseRows({ rows: /^file auto per-io, 1 queue/ });
  const names = calls(scriptOf(rows)).map(([name]) => name);
  expect(names.filter((name) => name === 'begin_server')).toHaveLength(1);
  expect(names.filter((name) => name === 'begin_loop')).toHaveLength(1);
  expect(names.filter((name) => name === 'row')).toHaveLength(rows.length);
});

test('rounds measure every row in turn', () => {
  const rows = chooseRows({ rows: /^file auto per-io, 1 queue, 64k/ });
  const script = scriptOf(rows, { rounds: 3, seconds: 2 });
  const order = calls(script).flatMap(([name, index]) => (name === 'row' ? Number(index) : []));
  const once = rows.map((_, index) => index);
  expect(order).toEqual([...once, ...once, ...once]);
});

test('in real time each queue has a client; where instructions are counted there is one', () => {
  const rows = chooseRows({ rows: /^raw, 2 queues, 4k randread qd32$/ });
  const rowOf = (more: object) => calls(scriptOf(rows, more)).find(([name]) => name === 'row');
  expect(rowOf({ seconds: 2 })).toContain('--numjobs=2');
  expect(rowOf({})).not.toContain('--numjobs=2');
  expect(rowOf({})).toContain('--number_ios=20000');
});

test("somebody else's commands reach the shell as they are", () => {
  const other: Other = {
    name: "it's",
    target: 'null',
    device: '/dev/x',
    start: 'add "$backing" \'a b\'',
    stop: 'del',
  };
  const rows = chooseRows({ others: [other], rows: /it's/ });
  const begins = calls(scriptOf(rows)).filter(([name]) => name === 'begin_other');
  expect(begins).toEqual([['begin_other', '/dev/x', other.start, 'del', '']]);
});
