// How figures are written, in tables and reports alike.

import type { Report } from './report.ts';

export const thousands = (value: number): string => Math.round(value).toLocaleString('en-US');

/** Nanoseconds as microseconds. */
export const micros = (ns: number): string => (ns / 1000).toFixed(1);

export const times = (ratio: number): string => `${ratio.toFixed(2)} ×`;

export const percent = (part: number): string =>
  `${part < 0 ? '−' : '+'}${(Math.abs(part) * 100).toFixed(1)} %`;

/** A number of few digits, such as 0.107 or 31.2. */
export const short = (value: number): string => String(Number(value.toPrecision(3)));

/** What the cost of a report's rows is counted in. */
export const costName = ({ clock }: Pick<Report, 'clock'>): string =>
  clock === 'instructions' ? 'instructions per I/O' : 'ns per I/O';

/** The first column to the left, figures to the right. */
export function markdownTable(
  head: readonly string[],
  lines: readonly (readonly string[])[],
): string {
  const rule = head.map((_, index) => (index === 0 ? ':--' : '--:'));
  return [head, rule, ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
