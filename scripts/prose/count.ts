/** What a text holds. */
export interface Count {
  readonly words: number;
  /** Words that stand for a noun. */
  readonly pronouns: number;
  /** Fillers and idioms. */
  readonly idioms: number;
}

const WORD = /[A-Za-z']+/g;
const PRONOUN = /\b(?:it|its|they|them|that|those|what|who|which|one|ones)\b/gi;
const IDIOM =
  /\b(?:somebody|nobody|whoever|anybody|everybody|elsewhere|meanwhile|by itself|by themselves|of ours|of its own|for good|so many|so long|one another|has been said|told|is to be|are to be|there is to|what is left|lets go|let go|goes on|go on)\b/gi;
/** A line that is a comment: `//`, `///`, `//!`, a line of a block comment, `# `. */
const COMMENT = /^\s*(?:\/\/[/!]?|\/?\*+|#\s)\s?(.*)$/gm;

/** Counts in the comments of a source, or in the whole of a Markdown file. */
export function countIn(source: string, file: string): Count {
  const comments = () => [...source.matchAll(COMMENT)].map(([, text]) => text).join(' ');
  const prose = file.endsWith('.md') ? source : comments();
  const times = (pattern: RegExp) => prose.match(pattern)?.length ?? 0;
  return { words: times(WORD), pronouns: times(PRONOUN), idioms: times(IDIOM) };
}

/** All of them together. */
export function sum(counts: readonly Count[]): Count {
  const of = (key: keyof Count) => counts.reduce((total, count) => total + count[key], 0);
  return { words: of('words'), pronouns: of('pronouns'), idioms: of('idioms') };
}
