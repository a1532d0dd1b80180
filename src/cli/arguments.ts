import { InvalidArgumentError } from 'commander';

/** A number on the command line. */
export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

/** An option that may be given more than once. */
export function collect(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}

/** Examples, for the end of a help text. */
export function example(...lines: string[]): string {
  const head = lines.length > 1 ? 'Examples:' : 'Example:';
  return ['', head, ...lines.map((line) => `  $ ${line}`)].join('\n');
}
