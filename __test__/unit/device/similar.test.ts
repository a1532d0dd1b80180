import { expect, test } from 'vitest';

import { closest } from '../../../src/similar.ts';

test.each([
  ['size', 'size', 0],
  ['sice', 'size', 1],
  ['readonly', 'readOnly', 0],
  ['quues', 'queues', 1],
  ['sizee', 'size', 1],
  ['ddepht', 'depth', 3],
  ['', 'size', 4],
])('%s is closest to %s, with %d typing errors', (word, guess, edits) => {
  expect(closest(word, ['queues', 'size', 'depth', 'readOnly'])).toEqual([guess, edits]);
});

test('the first of two equally close words is the guess', () => {
  expect(closest('ab', ['ac', 'bb'])).toEqual(['ac', 1]);
});
