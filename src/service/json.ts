/** Where a key, or an element of an array, is in a text: by its path, the keys joined by {@link pathKey}. */
export type Lines = ReadonlyMap<string, number>;

/** The place of a value in JSON: keys of objects and numbers of elements. */
export type KeyPath = readonly (string | number)[];

/** What is wrong with a text that should be JSON. */
export class JsonSyntaxError extends Error {
  readonly line: number;
  readonly hint: string;
  /** The object or array that the error is in, or the key that is wrong. */
  readonly path: KeyPath;

  constructor(line: number, path: KeyPath, message: string, hint: string) {
    super(message);
    this.line = line;
    this.hint = hint;
    this.path = path;
  }
}

/** A path as one text. */
export function pathKey(path: KeyPath): string {
  return JSON.stringify(path);
}

const TOKEN = /([{}[\],:])|"(?:[^"\\\n]|\\[^\n])*"|-?\d[\d.eE+-]*|[\w$]+|[^\s]/y;
const WORDS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['true', true],
  ['false', false],
  ['null', null],
]);
/** How deep objects and arrays may lie in each other. */
const DEEPEST = 64;

/**
 * Reads JSON, and remembers the line of each key: `JSON.parse()` knows of no lines, and takes the last
 * of two equal keys.
 *
 * @throws {JsonSyntaxError}
 */
export function readJson(text: string): { readonly value: unknown; readonly lines: Lines } {
  const reader = new JsonReader(text);
  return { value: reader.document(), lines: reader.lines };
}

class JsonReader {
  readonly lines = new Map<string, number>();
  readonly #text: string;
  #at = 0;
  #line = 1;
  #token = '';

  constructor(text: string) {
    this.#text = text.replace(/^\uFEFF/, '');
    this.#next();
  }

  document(): unknown {
    if (this.#token === '')
      throw this.#error([], 'the file is empty', 'begin with { "devices": { } }');
    const value = this.#value([]);
    if (this.#token === '') return value;
    throw this.#error([], `${this.#shown()} follows the end of the JSON`, 'remove what follows');
  }

  #value(path: KeyPath): unknown {
    if (path.length > DEEPEST) throw this.#error(path, 'there are too many brackets', 'nest less');
    const token = this.#token;
    if (token === '{') return this.#object(path);
    if (token === '[') return this.#array(path);
    if (token.startsWith('"')) return this.#string(path);
    if (WORDS.has(token)) {
      this.#next();
      return WORDS.get(token);
    }
    if (/^-?\d/.test(token)) return this.#number(path);
    throw this.#error(path, `${this.#shown()} is no value`, remedy(token, 'write a value'));
  }

  #object(path: KeyPath): object {
    const entries = new Map<string, unknown>();
    this.#next();
    while (this.#token !== '}') {
      const line = this.#line;
      if (!this.#token.startsWith('"')) throw this.#noKey(path);
      const key = this.#string(path);
      const inner = [...path, key];
      if (entries.has(key)) {
        const first = `the first is in line ${this.lines.get(pathKey(inner))}`;
        throw new JsonSyntaxError(line, inner, `'${key}' is there twice; ${first}`, 'remove one');
      }
      this.lines.set(pathKey(inner), line);
      this.#expect(':', inner, `write a colon after "${key}"`);
      entries.set(key, this.#value(inner));
      this.#separate('}', path);
    }
    this.#next();
    return Object.fromEntries(entries);
  }

  #array(path: KeyPath): unknown[] {
    const values: unknown[] = [];
    this.#next();
    while (this.#token !== ']') {
      const inner = [...path, values.length];
      this.lines.set(pathKey(inner), this.#line);
      values.push(this.#value(inner));
      this.#separate(']', path);
    }
    this.#next();
    return values;
  }

  /** A comma with something behind it, or the end. */
  #separate(end: '}' | ']', path: KeyPath): void {
    if (this.#token === end) return;
    if (this.#token === '')
      throw this.#error(path, `the file ends before a '${end}'`, `close it with ${end}`);
    if (this.#token !== ',') {
      const hint = remedy(this.#token, `write a comma before ${this.#shown()}`);
      throw this.#error(path, `a comma or '${end}' is missing before ${this.#shown()}`, hint);
    }
    const line = this.#line;
    this.#next();
    if ((this.#token as string) !== end) return;
    throw new JsonSyntaxError(line, path, `a comma is before '${end}'`, 'remove the comma');
  }

  #noKey(path: KeyPath): JsonSyntaxError {
    if (this.#token === '')
      return this.#error(path, "the file ends before a '}'", 'close it with }');
    const hint = remedy(this.#token, 'write the key in double quotes: "devices"');
    return this.#error(path, `${this.#shown()} is no key`, hint);
  }

  #string(path: KeyPath): string {
    if (this.#token === '"') throw this.#error(path, 'a string has no end', remedy('"', ''));
    const value = this.#parse(path, 'a string with a wrong escape', 'write \\\\ for a backslash');
    return value as string;
  }

  #number(path: KeyPath): number {
    const hint = 'write a number such as 64, or text such as "64MiB"';
    return this.#parse(path, `${this.#shown()} is no number`, hint) as number;
  }

  #parse(path: KeyPath, message: string, hint: string): unknown {
    try {
      const value: unknown = JSON.parse(this.#token);
      this.#next();
      return value;
    } catch {
      throw this.#error(path, message, hint);
    }
  }

  #expect(token: string, path: KeyPath, hint: string): void {
    if (this.#token !== token) {
      throw this.#error(path, `'${token}' is missing before ${this.#shown()}`, hint);
    }
    this.#next();
  }

  #next(): void {
    while (/\s/.test(this.#text[this.#at] ?? '')) {
      if (this.#text[this.#at] === '\n') this.#line += 1;
      this.#at += 1;
    }
    TOKEN.lastIndex = this.#at;
    this.#token = TOKEN.exec(this.#text)?.[0] ?? '';
    this.#at += this.#token.length;
  }

  #shown(): string {
    return this.#token === '' ? 'the end of the file' : `'${this.#token}'`;
  }

  #error(path: KeyPath, message: string, hint: string): JsonSyntaxError {
    return new JsonSyntaxError(this.#line, path, message, hint);
  }
}

/** What to do about a token that JSON does not have. */
function remedy(token: string, otherwise: string): string {
  if (token === '/' || token === '#')
    return 'JSON has no comments: remove it, or write a module (ublk.js)';
  if (token === "'") return 'write strings in double quotes';
  if (token === '"') return 'end the string with a double quote in the same line';
  if (/^[a-z$_]/i.test(token)) return `write "${token}" in double quotes`;
  return otherwise;
}
