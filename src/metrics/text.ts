import type { MetricFamily, MetricSample } from './families.ts';

/** The media type of {@link toText}. */
export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Metrics in the text format of Prometheus, version 0.0.4. Leaves out metrics without samples. */
export function toText(families: readonly MetricFamily[]): string {
  // The metrics of a device share one object of labels.
  const known = new Map<MetricSample['labels'], string>();
  const labelsOf = (labels: MetricSample['labels']): string => {
    const before = known.get(labels);
    if (before !== undefined) return before;
    const text = toLabels(labels);
    known.set(labels, text);
    return text;
  };
  let text = '';
  for (const { name, help, type, samples } of families) {
    if (samples.length === 0) continue;
    // One string per metric: a string that grows by each line is slow to make and slow to send.
    const lines = [`# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}`];
    for (const { labels, value, suffix = '' } of samples) {
      lines.push(`${name}${suffix}${labelsOf(labels)} ${value}`);
    }
    text += `${lines.join('\n')}\n`;
  }
  return text;
}

function toLabels(labels: MetricSample['labels']): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeValue(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', String.raw`\\`).replaceAll('\n', String.raw`\n`);
}

function escapeValue(text: string): string {
  if (!/["\\\n]/.test(text)) return text;
  return escapeHelp(text).replaceAll('"', String.raw`\"`);
}
