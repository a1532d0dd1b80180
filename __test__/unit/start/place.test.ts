import { expect, test } from 'vitest';
import { choosePlace } from '../../../scripts/start/place.ts';

const able = { ublk: true, root: true, terminal: true };

test('a system that can is used, once its user agrees', () => {
  expect(choosePlace({}, able)).toEqual({ native: true, ask: true });
  expect(choosePlace({ yes: true }, { ...able, terminal: false })).toEqual({
    native: true,
    ask: false,
  });
});

test.each([
  ['no ublk', { yes: true as const }, { ...able, ublk: false }, /no ublk/],
  ['no root', { yes: true as const }, { ...able, root: false }, /root/],
  ['nobody to ask', {}, { ...able, terminal: false }, /--yes/],
  ['asked for', { yes: true as const, vm: true as const }, able, /asked/],
  ['another kernel', { yes: true as const, kernel: '7.2' }, able, /asked/],
])('a virtual machine is used, and why is told: %s', (_, options, circumstances, why) => {
  const place = choosePlace(options, circumstances);
  expect(place).toEqual({ native: false, why: expect.stringMatching(why) });
});
