import { format } from 'prettier';

import { DEFINITIONS, type MetricDefinition } from '../../src/metrics/families.ts';

const PLACE = /(<!-- metrics: npx tsx scripts\/metrics\.ts -->\n).*(<!-- end of metrics -->)/s;

/** The text of a guide, with the table of all metrics at its place. */
export async function withTable(guide: string): Promise<string> {
  if (!PLACE.test(guide)) throw new Error('the guide has no place for the table of metrics');
  const rows = DEFINITIONS.map(row);
  const table = ['| metric | type | from | meaning |', '| --- | --- | --- | --- |', ...rows].join(
    '\n',
  );
  const text = await format(table, { parser: 'markdown' });
  return guide.replace(PLACE, (_, before: string, after: string) => `${before}\n${text}\n${after}`);
}

function row({ name, type, origin, help, labels = [] }: MetricDefinition): string {
  const more = labels.map((label) => `, label \`${label}\``).join('');
  return `| \`${name}\` | ${type}${more} | ${origin} | ${help.replace(/\.$/, '')} |`;
}
