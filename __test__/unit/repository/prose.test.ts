import { expect, test } from 'vitest';

import { countIn, sum } from '../../../scripts/prose/count.ts';

test('prose is counted in comments alone, and in all of a Markdown file', () => {
  const source = [
    '/** It waits. */',
    '// Whoever asks is told.',
    " * The driver's own word.",
    "const it = 'what it is';",
  ].join('\n');
  const comments = { words: 10, pronouns: 1, idioms: 2 };
  expect(countIn(source, 'a.ts')).toEqual(comments);
  const markdown = { words: 4, pronouns: 2, idioms: 0 };
  expect(countIn('It is what waits.', 'a.md')).toEqual(markdown);
  expect(sum([comments, markdown])).toEqual({ words: 14, pronouns: 3, idioms: 2 });
});
