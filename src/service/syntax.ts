/** The line of each key and of each array element in a text, by the path as {@link pathKey} writes it. */
export type Lines = ReadonlyMap<string, number>;

/** The place of a value in a configuration: keys of objects and indexes of array elements. */
export type KeyPath = readonly (string | number)[];

/** A path as text. */
export function pathKey(path: KeyPath): string {
  return JSON.stringify(path);
}

/** The greatest number of objects and arrays around a value. */
export const DEEPEST = 64;

/** An error in the text of a configuration, in words. */
export interface SyntaxProblem {
  readonly message: string;
  /** How to correct the text. */
  readonly hint: string;
}

/** An error of a text that should be JSON or TOML. */
export class ConfigSyntaxError extends Error {
  readonly line: number;
  readonly hint: string;
  /** The object or array around the error, or the wrong key. */
  readonly path: KeyPath;

  constructor(line: number, path: KeyPath, { message, hint }: SyntaxProblem) {
    super(message);
    this.line = line;
    this.hint = hint;
    this.path = path;
  }
}

/** Objects and arrays that are nested too deep. */
export function tooDeep(): SyntaxProblem {
  return { message: 'there are too many brackets', hint: 'nest less' };
}

/** A key that an object has twice; `first` is the line of the first one. */
export function duplicate(key: string, first: number): SyntaxProblem {
  return { message: `'${key}' is there twice; the first is in line ${first}`, hint: 'remove one' };
}
