import { styleText } from 'node:util';

/** A colour or style of {@link paint}. */
export type Style = 'bold' | 'dim' | 'inverse' | 'green' | 'yellow' | 'red';

/** Whether a command answers in JSON. */
export interface OutputFlags {
  readonly json?: true | undefined;
}

/** Prints a command's answer: as a line of JSON for scripts, or as text for people. */
export async function answer(
  flags: OutputFlags,
  data: unknown,
  text: () => string | Promise<string>,
): Promise<void> {
  process.stdout.write(`${flags.json ? JSON.stringify(data) : await text()}\n`);
}

/** Text in a style, where stdout shows it. */
export function paint(style: Style, text: string): string {
  const shown = process.stdout.isTTY && !process.env['NO_COLOR'];
  return shown ? styleText(style, text) : text;
}

const BORDERS =
  'top top-mid top-left top-right bottom bottom-mid bottom-left bottom-right ' +
  'left left-mid mid mid-mid right right-mid';

/** Rows in aligned columns, without lines. */
export async function table(rows: readonly string[][], head?: readonly string[]): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const none = Object.fromEntries(BORDERS.split(' ').map((name) => [name, '']));
  const drawn = new Table({
    chars: { ...none, middle: '  ' },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  });
  if (head) drawn.push(head.map((name) => paint('dim', name)));
  drawn.push(...rows);
  const lines = drawn.toString().split('\n');
  return lines.map((line) => line.trimEnd()).join('\n');
}
