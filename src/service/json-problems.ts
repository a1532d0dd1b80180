import { printParseErrorCode, type ParseErrorCode } from 'jsonc-parser';

import type { SyntaxProblem } from './syntax.ts';

/** A file without JSON. */
export function emptyFile(): SyntaxProblem {
  return { message: 'the file is empty', hint: 'begin with { "devices": { } }' };
}

/** A comma before the end of an object or array. */
export function trailingComma(end: string): SyntaxProblem {
  return { message: `a comma is before '${end}'`, hint: 'remove the comma' };
}

/** A word that begins as a number. */
export function malformedNumber(word: string): SyntaxProblem {
  const hint = 'write a number such as 64, or text such as "64MiB"';
  return { message: `'${word}' is no number`, hint };
}

/** The error that the parser reports at a token; an empty token is the end of the file. */
export function problemAt(token: string, code: ParseErrorCode): SyntaxProblem {
  const [start = ''] = token.split('\n', 1);
  const shown = token === '' ? 'the end of the file' : `'${start}'`;
  switch (printParseErrorCode(code)) {
    case 'InvalidCommentToken':
      return { message: `${shown} is a comment`, hint: NO_COMMENTS };
    case 'InvalidNumberFormat':
    case 'UnexpectedEndOfNumber':
      return malformedNumber(token);
    case 'UnexpectedEndOfString':
      return { message: 'a string has no end', hint: 'write a double quote in the same line' };
    case 'InvalidEscapeCharacter':
    case 'InvalidUnicode':
      return { message: 'a string has a wrong escape', hint: 'write \\\\ for a backslash' };
    case 'InvalidCharacter':
      return { message: 'a string has a control character', hint: 'write \\t for a tab' };
    case 'PropertyNameExpected':
      return { message: `${shown} is no key`, hint: 'write a key in double quotes: "devices"' };
    case 'ColonExpected':
      return missing('a colon', shown);
    case 'CommaExpected':
      return missing('a comma', shown);
    case 'ValueExpected':
      return missing('a value', shown);
    case 'CloseBraceExpected':
      return { message: "the file ends before a '}'", hint: 'close the object with }' };
    case 'CloseBracketExpected':
      return { message: "the file ends before a ']'", hint: 'close the array with ]' };
    case 'EndOfFileExpected':
      return { message: `${shown} follows the end of the JSON`, hint: 'remove what follows' };
    default:
      return { message: `${shown} is not JSON`, hint: remedyFor(token) };
  }
}

const NO_COMMENTS = 'JSON has no comments: remove the comment, or write a module (ublk.js)';

function missing(what: string, place: string): SyntaxProblem {
  return { message: `${what} is missing before ${place}`, hint: `write ${what} before ${place}` };
}

/** How to correct a token that JSON does not have. */
function remedyFor(token: string): string {
  if (token.startsWith('#') || token.startsWith('/')) return NO_COMMENTS;
  if (token.startsWith("'")) return 'write strings in double quotes';
  if (/^[\w$]+$/.test(token)) return `write "${token}" in double quotes`;
  return 'remove the text, or write the text in double quotes';
}
