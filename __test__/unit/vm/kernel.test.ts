import { expect, test } from 'vitest';
import { chooseRelease, suitesFor } from '../../../vm/kernel.ts';

const names = [
  'linux-base-7.3.4+deb13-cloud-amd64',
  'linux-image-7.3.4+deb13-cloud-amd64',
  'linux-image-7.2.9+deb13-cloud-amd64',
  'linux-image-7.2.12+deb13-cloud-amd64',
  'linux-image-7.2.12+deb13-amd64',
];

test('the newest release of the series is chosen, by number and not by letter', () => {
  expect(chooseRelease('7.2', names)).toBe('7.2.12+deb13-cloud-amd64');
});

test('a series that only begins alike is another one', () => {
  expect(chooseRelease('7.3', ['linux-image-7.30.1+deb13-cloud-amd64'])).toBeUndefined();
});

test('a suite that moved on to another series is noticed', () => {
  expect(chooseRelease('7.4', names)).toBeUndefined();
});

test('a series is looked for in its own suite first, then in the others', () => {
  expect(suitesFor('7.2')).toEqual(['sid', 'trixie-backports', 'trixie']);
  expect(suitesFor('7.9')).toEqual(['trixie-backports', 'sid', 'trixie']);
});
