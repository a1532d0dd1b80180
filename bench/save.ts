// A report's files: report.json for scripts, README.md and charts for people.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Flame } from './breakdowns.ts';
import { drawCharts } from './charts.ts';
import { markdownReport } from './markdown.ts';
import type { Report } from './report.ts';

/** Writes into the directory, which is made if need be; files of the same names are replaced. */
export async function saveReport(
  report: Report,
  dir: string,
  flames: readonly Flame[] = [],
): Promise<void> {
  const charts = drawCharts(report);
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
  await writeFile(join(dir, 'README.md'), markdownReport(report, charts, flames));
  await Promise.all([...charts, ...flames].map(({ file, svg }) => writeFile(join(dir, file), svg)));
}
