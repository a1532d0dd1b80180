import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import type * as levenshtein from 'fastest-levenshtein';

import { invalid, wrong } from './errors.ts';

/**
 * Refuses a value that is no options object, and unknown keys.
 *
 * @param what The name of the object in the error.
 * @param at The option whose value the object is, for the error's key; absent for the options themselves.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function checkKeys(
  value: unknown,
  what: string,
  known: readonly string[],
  at?: string,
): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${what} must be an object, not ${describe(value)}`, undefined, at);
  }
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) {
      const place = at === undefined ? key : `${at}.${key}`;
      throw invalid(`${what} has no '${key}'`, suggest(key, known), place);
    }
  }
}

/** A hint for an unknown `word`: the closest known word, or the list of known words. */
export function suggest(word: string, known: readonly string[]): string {
  // Loaded here, since most programs make no such error.
  const load = createRequire(import.meta.url);
  const { distance } = load('fastest-levenshtein') as typeof levenshtein;
  const errors = (one: string): number => distance(word.toLowerCase(), one.toLowerCase());
  const [guess] = known
    .map((one) => ({ one, errors: errors(one) }))
    .filter((each) => each.errors <= Math.max(2, word.length / 3))
    .sort((a, b) => a.errors - b.errors);
  if (guess !== undefined) return `did you mean '${guess.one}'?`;
  return known.length === 0 ? 'leave the word out' : `there is: ${known.join(', ')}`;
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is a whole number in the range. */
export function checkInteger(value: unknown, name: string, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) {
    return value;
  }
  throw wrong(name, `is ${describe(value)}; it must be a whole number from ${min} to ${max}`);
}

/** Checks those of some options that are given: whole numbers, each with the least and the largest value. */
export function checkIntegers<Key extends string>(
  options: Readonly<Partial<Record<NoInfer<Key>, unknown>>>,
  ranges: Readonly<Record<Key, readonly [least: number, most: number]>>,
): Partial<Record<Key, number>> {
  const given: Partial<Record<Key, number>> = {};
  for (const key of Object.keys(ranges) as Key[]) {
    const [least, most] = ranges[key];
    if (options[key] !== undefined) given[key] = checkInteger(options[key], key, least, most);
  }
  return given;
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is true or false. */
export function checkBoolean(value: unknown, name: string): boolean {
  if (typeof value === 'boolean') return value;
  throw wrong(name, `is ${describe(value)}; it must be true or false`);
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `known` has `value`. */
export function checkOneOf<T extends string>(value: unknown, name: string, known: readonly T[]): T {
  const found = known.find((one) => one === value);
  if (found !== undefined) return found;
  const hint = typeof value === 'string' ? suggest(value, known) : `there is: ${known.join(', ')}`;
  throw wrong(name, `is ${describe(value)}`, hint);
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is the name of a device. */
export function checkName(value: unknown, name: string): string {
  if (typeof value === 'string' && /^[a-z\d][\w.-]{0,63}$/i.test(value)) return value;
  throw wrong(
    name,
    `is ${describe(value)}; it must be 1 to 64 letters, digits, '.', '_' or '-'`,
    "begin the name with a letter or a digit, for example 'data-1'",
  );
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is a list of CPU numbers. */
export function checkCpus(value: unknown, name: string): readonly number[] {
  if (Array.isArray(value) && value.length > 0) {
    return value.map((cpu, at) => checkInteger(cpu, `${name}[${at}]`, 0, 8191));
  }
  throw wrong(name, `is ${describe(value)}; it must be a list of CPU numbers, like [0, 1]`);
}

/**
 * A path as text, also of a `file:` URL.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is a valid path for the kernel.
 */
export function checkPath(value: unknown, name: string): string {
  const path = value instanceof URL ? pathOfUrl(value, name) : value;
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw wrong(name, `is ${describe(path)}; it must be the path of a file`);
  }
  // Node.js puts U+FFFD for bytes outside UTF-8, for example in an argument in Latin-1.
  if (path.includes('\uFFFD') && !existsSync(path)) {
    throw wrong(
      name,
      `is ${describe(path)}: a name with bytes that are no UTF-8 is lost on its way here`,
      'give the file another name, or make a link to it: ln -s FILE disk.img',
    );
  }
  return path;
}

/**
 * A path as absolute text; a relative path starts from the working directory.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`, also where the working directory is gone.
 */
export function checkAbsolutePath(value: unknown, name: string): string {
  const path = checkPath(value, name);
  try {
    return resolve(path);
  } catch {
    throw wrong(
      name,
      `is ${describe(path)}, but the working directory has been deleted`,
      'give an absolute path, or change to a directory that exists',
    );
  }
}

function pathOfUrl(url: URL, name: string): string {
  try {
    return fileURLToPath(url);
  } catch {
    throw wrong(name, `is ${url.href}; a URL must be that of a file, like file:///srv/disk.img`);
  }
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (value === null || typeof value !== 'object') return String(value);
  return Array.isArray(value) ? 'an array' : 'an object';
}

/**
 * The files of new disks on a snapshot, as absolute paths.
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for anything but an array of paths, at least one.
 */
export function checkChildren(children: readonly (string | URL)[]): string[] {
  if (!Array.isArray(children) || children.length === 0) {
    throw invalid('children must be an array of paths, at least one');
  }
  return children.map((child, at) => checkAbsolutePath(child, `children[${at}]`));
}
