import { CommanderError } from 'commander';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { parseOptions } from '../../../scripts/start/options.ts';

let said = '';

beforeEach(() => {
  said = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => ((said += String(text)), true));
});
afterEach(() => vi.restoreAllMocks());

test('nothing asked for: one queue, everything else by default', () => {
  expect(parseOptions([])).toEqual({ queues: 1 });
});

test('all that can be asked for', () => {
  const args = '--from d --size 1GiB --queues 3 --buffers copy --yes --vm --kernel 6.12 --json';
  expect(parseOptions(args.split(' '))).toEqual({
    from: 'd',
    size: 2 ** 30,
    queues: 3,
    buffers: 'copy',
    yes: true,
    vm: true,
    kernel: '6.12',
    json: true,
  });
});

test.each([
  ['--queues 0', /whole number from 1 to 4096/],
  ['--queues two', /whole number from 1 to 4096/],
  ['--size 1KB', /two ways/],
  ['--size 1MiB', /16 MiB at least/],
  ['--buffers fast', /auto, register, copy/],
  ['--kernel 5.10', /7\.3, 7\.2, 6\.12/],
  ['--image a --size 1GiB', /cannot be used with/],
  ['--sise 1GiB', /Did you mean --size/],
])('%s is refused, and the reason told', (args, reason) => {
  expect(() => parseOptions(args.split(' '))).toThrow(CommanderError);
  expect(said).toMatch(reason);
});
