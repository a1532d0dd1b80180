/**
 * The known word with the fewest typing errors against `word`; the first of equals.
 *
 * @returns The closest word and the number of characters to insert, remove or replace.
 */
export function closest(word: string, known: readonly string[]): [guess: string, edits: number] {
  let best: [string, number] = ['', Number.POSITIVE_INFINITY];
  for (const one of known) {
    const edits = distance(word, one.toLowerCase());
    if (edits < best[1]) best = [one, edits];
  }
  return best;
}

/** Levenshtein's distance, a row per character of `from`. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (const [index, character] of [...from].entries()) {
    const next = [index + 1];
    for (let at = 0; at < to.length; at += 1) {
      const replaced = row[at]! + (character === to[at] ? 0 : 1);
      next.push(Math.min(replaced, row[at + 1]! + 1, next[at]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
