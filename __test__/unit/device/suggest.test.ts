import { expect, test } from 'vitest';

import { suggest } from '../../../src/check.ts';

const KNOWN = ['queues', 'size', 'depth', 'readOnly'];

test.each([
  ['sice', 'size'],
  ['readonly', 'readOnly'],
  ['quues', 'queues'],
  ['SIZEE', 'size'],
])('%s may be %s', (word, guess) => {
  expect(suggest(word, KNOWN)).toBe(`did you mean '${guess}'?`);
});

test('the first of two equally close words is the guess', () => {
  expect(suggest('ab', ['ac', 'bb'])).toBe("did you mean 'ac'?");
});

test('a word like no other gets the list of all, if there are any', () => {
  expect(suggest('compression', KNOWN)).toBe('there is: queues, size, depth, readOnly');
  expect(suggest('size', [])).toBe('leave the word out');
});
