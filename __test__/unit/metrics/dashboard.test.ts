import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { execa } from 'execa';
import { expect, onTestFinished, test } from 'vitest';

import { findProgram } from '../../../scripts/debian.ts';
import { parseDiskStat } from '../../../src/disk-stat.ts';
import type { Counters, DeviceInfo } from '../../../src/info.ts';
import { DEFINITIONS, toFamilies } from '../../../src/metrics/families.ts';
import { toText } from '../../../src/metrics/text.ts';

interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
}

const FILE = join(import.meta.dirname, '../../../examples/grafana-dashboard.json');
const dashboard = JSON.parse(readFileSync(FILE, 'utf8')) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly query: unknown }[] };
};
const expressions = dashboard.panels.flatMap(({ title, targets }) =>
  targets.map(({ expr, legendFormat }) => [title, expr, legendFormat] as const),
);
/** The series of a histogram grow like counters. */
const types = new Map(
  DEFINITIONS.flatMap(({ name, type }): [string, string][] =>
    type === 'histogram'
      ? ['_bucket', '_sum', '_count'].map((suffix) => [`${name}${suffix}`, 'counter'])
      : [[name, type]],
  ),
);
const promtool = process.env['UBLK_PROMTOOL'] ?? findProgram('promtool');
const why = promtool === undefined ? ' [no promtool: npm test -- unit]' : '';

/** Two devices with counters, as a scrape tells of them. */
function scraped(): string {
  const info = { state: 'live', size: 1 << 30, queues: 2, depth: 64 } as unknown as DeviceInfo;
  const counters = new Proxy({} as Counters, { get: () => 1 });
  const one = { count: 1, sum: 5000, buckets: [{ below: 5120, count: 1 }] };
  const latencies = { read: one, write: one, flush: one, discard: one, writeZeroes: one };
  const disk = parseDiskStat('1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1');
  const devices = [0, 1].map((id) => {
    return { info: { ...info, id }, name: `disk${id}`, counters, latencies, disk };
  });
  return toText(toFamilies(devices, '1.2.3'));
}

/** The lines of a scrape as series of a test of promtool: counters grow, gauges stay. */
function series(): object[] {
  const lines = scraped().split('\n');
  return lines.flatMap((line) => {
    const [, name = '', labels, value] = /^(ublk_\w+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    if (value === undefined) return [];
    const step = types.get(name) === 'counter' ? 7 : 0;
    const labelled = `${name}{instance="host:9760",${labels}}`;
    return [{ series: labelled, values: `${value}+${step}x20` }];
  });
}

test.each(expressions)('%s: %s has metrics of this version', (_, expression, legend) => {
  const names = expression.match(/ublk_\w+/g) ?? [];
  expect(names.filter((name) => !types.has(name))).toEqual([]);
  expect(names.length).toBeGreaterThan(0);
  const raw = expression.replaceAll(/(?:rate|increase)\(ublk_\w+/g, '');
  const bare = (raw.match(/ublk_\w+/g) ?? []).filter((name) => types.get(name) === 'counter');
  expect(bare).toEqual([]);
  const labels = [...legend.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label);
  expect(['device', 'name', 'op', 'version']).toEqual(expect.arrayContaining(labels));
});

test('the choices of the dashboard name metrics of this version', () => {
  const names = JSON.stringify(dashboard.templating).match(/ublk_\w+/g) ?? [];
  expect(names.length).toBe(2);
  expect(names.filter((name) => !types.has(name))).toEqual([]);
});

test.runIf(promtool)(`Prometheus finds a value for each expression${why}`, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-dashboard-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const tests = expressions.map(([, expression]) => {
    const filled = expression
      .replaceAll(/\$(instance|device)/g, '.*')
      .replaceAll(/\$__(rate_interval|range)/g, '5m');
    // NaN and infinity are no values.
    const expr = `count(abs(${filled}) < +Inf) > bool 0`;
    return { expr, eval_time: '10m', exp_samples: [{ labels: '{}', value: 1 }] };
  });
  const input = { interval: '1m', input_series: series(), promql_expr_test: tests };
  const file = join(folder, 'test.yml');
  writeFileSync(file, JSON.stringify({ tests: [input] }));
  const done = await execa(promtool!, ['test', 'rules', file], { all: true, reject: false });
  expect(done.all).toMatch(/SUCCESS\s*$/);
});
