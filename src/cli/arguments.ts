import { InvalidArgumentError } from 'commander';

import { BUFFER_MODES, type BufferMode } from '../info.ts';

/** The words that name a target below another target, for help texts. */
export const PART =
  'a file, a block device, qcow2:IMAGE, overlay:FROZEN-LAYER:BASE, null:SIZE, error:SIZE, nbd://HOST/EXPORT, rbd:POOL/IMAGE or http://HOST/PATH';

/** Parses a whole number. */
export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

/** Parses a number of seconds that is not 0. */
export function seconds(text: string): number {
  const number = wholeNumber(text);
  if (number === 0) throw new InvalidArgumentError('It must be 1 or more.');
  return number;
}

/** Seconds as milliseconds. */
export function inMilliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}

/** Parses another number of a variadic argument. */
export function wholeNumbers(text: string, before: readonly number[] = []): number[] {
  return [...before, wholeNumber(text)];
}

/** Parses buffer modes with commas between. */
export function bufferModes(text: string): readonly BufferMode[] {
  return text.split(',').map((name) => {
    const mode = BUFFER_MODES.find((one) => one === name);
    if (mode !== undefined) return mode;
    throw new InvalidArgumentError(`Allowed choices are ${BUFFER_MODES.join(', ')}.`);
  });
}

/** Collects the values of a repeated option. */
export function collect(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}

/** Examples, for the end of a help text. */
export function example(...lines: string[]): string {
  const head = lines.length > 1 ? 'Examples:' : 'Example:';
  return ['', head, ...lines.map((line) => `  $ ${line}`)].join('\n');
}

/** Parses CPUs: numbers and ranges, `0,2-3`. */
export function cpuList(text: string): number[] {
  const cpus = text.split(',').flatMap((part) => {
    const range = /^(\d+)(?:-(\d+))?$/.exec(part);
    const [first, last] = [Number(range?.[1]), Number(range?.[2] ?? range?.[1])];
    if (!range || last < first || last > 8191) {
      throw new InvalidArgumentError('It must be numbers and ranges of CPUs, like 0,2-3.');
    }
    return Array.from({ length: last - first + 1 }, (_, at) => first + at);
  });
  return [...new Set(cpus)];
}
