import { visit, type JSONVisitor } from 'jsonc-parser';

import { emptyFile, malformedNumber, problemAt, trailingComma } from './json-problems.ts';
import {
  ConfigSyntaxError,
  DEEPEST,
  duplicate,
  pathKey,
  tooDeep,
  type KeyPath,
  type Lines,
} from './syntax.ts';

/**
 * Reads JSON, with the line of each key. `JSON.parse()` reports no lines, and takes the last of two
 * equal keys.
 *
 * @throws {ConfigSyntaxError} The first error of the text.
 */
export function readJson(text: string): { readonly value: unknown; readonly lines: Lines } {
  const json = text.replace(/^\uFEFF/, '');
  const lines = new Map<string, number>();
  visit(json, strictVisitor(json, lines), { disallowComments: true });
  return { value: JSON.parse(json), lines };
}

/** Notes the line of each key and element in `lines`, and throws at the first error. */
function strictVisitor(json: string, lines: Map<string, number>): JSONVisitor {
  // The parser passes `pathOf` to each callback but `onError`; the function always returns the current path.
  let path = (): KeyPath => [];
  let literal: KeyPath = [];
  const note = (place: KeyPath, line: number): void => {
    if (place.length > DEEPEST) throw new ConfigSyntaxError(line, place, tooDeep());
    const key = pathKey(place);
    if (!lines.has(key)) lines.set(key, line);
  };
  const begin: JSONVisitor['onObjectBegin'] = (_offset, _length, line, _column, pathOf) => {
    path = pathOf;
    note(path(), line + 1);
  };
  return {
    onObjectBegin: begin,
    onArrayBegin: begin,
    onObjectProperty(name, _offset, _length, line) {
      const place = [...path(), name];
      const first = lines.get(pathKey(place));
      if (first !== undefined) throw new ConfigSyntaxError(line + 1, place, duplicate(name, first));
      note(place, line + 1);
    },
    onLiteralValue(_value, _offset, _length, line) {
      literal = path();
      note(literal, line + 1);
    },
    onError(code, offset, length, line) {
      const before = json.slice(0, offset);
      const token = json.slice(offset, offset + length);
      // The parser ends the number `01` after the 0, and reports the 1.
      const [digits] = /\d[\w.+-]*$/.exec(before) ?? [];
      if (digits !== undefined && /^\w/.test(token)) {
        throw new ConfigSyntaxError(line + 1, literal, malformedNumber(digits + token));
      }
      const [comma] = /,\s*$/.exec(before) ?? [];
      if (comma !== undefined && (token === '}' || token === ']')) {
        const above = comma.split('\n').length - 1;
        throw new ConfigSyntaxError(line + 1 - above, path(), trailingComma(token));
      }
      const isEmpty = before.trim() === '' && token === '';
      throw new ConfigSyntaxError(line + 1, path(), isEmpty ? emptyFile() : problemAt(token, code));
    },
  };
}
