import { createInterface } from 'node:readline/promises';

import { execa } from 'execa';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { ensurePackages, findProgram } from '../../../scripts/debian.ts';

vi.mock(import('node:readline/promises'), async (original) => ({
  ...(await original()),
  createInterface: vi.fn<() => unknown>() as never,
}));
vi.mock(import('execa'), async (original) => ({
  ...(await original()),
  execa: vi.fn<(...args: unknown[]) => unknown>() as never,
}));

const MISSING = 'a-program-that-no-machine-has';
const close = vi.fn<() => void>();
const question = vi.fn<(text: string) => Promise<string>>();
const said: string[] = [];

/** What is run as a user, at a terminal or elsewhere, who answers a question so. */
function asUser(uid: number, isTTY: boolean, answer = ''): void {
  vi.spyOn(process, 'getuid').mockReturnValue(uid);
  vi.stubGlobal(
    'process',
    Object.create(process, {
      stdin: { value: { isTTY } },
      stderr: { value: { isTTY } },
    }),
  );
  question.mockResolvedValue(answer);
}

beforeEach(() => {
  said.length = 0;
  vi.spyOn(console, 'error').mockImplementation((text: string) => void said.push(text));
  vi.mocked(createInterface).mockReturnValue({ question, close } as never);
  vi.mocked(execa).mockResolvedValue({
    failed: true,
    stderr: 'E: Unable to locate package',
  } as never);
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.clearAllMocks();
  vi.restoreAllMocks();
});

const ensure = () => ensurePackages([MISSING], 'test this');
const programs = () => vi.mocked(execa).mock.calls.map(([program]) => String(program));

test.skipIf(!findProgram('apt-get'))(
  'a user at a terminal who declines gets the command, and nothing runs',
  async () => {
    for (const answer of ['', 'n', 'no', 'yellow']) {
      asUser(1000, true, answer);
      await expect(ensure()).rejects.toThrow(
        `Run this as root, then try again:\n  apt-get install --no-install-recommends ${MISSING}`,
      );
    }
    expect(question).toHaveBeenCalledTimes(4);
    expect(question.mock.calls[0]![0]).toContain(`Missing: ${MISSING}, needed to test this.`);
    expect(close).toHaveBeenCalledTimes(4);
    expect(programs()).toEqual([]);
  },
);

test.skipIf(!findProgram('apt-get')).each([
  ['a user at a terminal who agrees', 1000, true, 'y', 'sudo', 1],
  ['a user without a terminal', 1000, false, '', 'sudo', 0],
  ['root', 0, true, '', 'env', 0],
])(
  '%s lets apt-get run, and hears of its failure',
  async (_who, uid, isTTY, answer, program, asked) => {
    asUser(uid, isTTY, answer);
    await expect(ensure()).rejects.toThrow(/Could not install .*\nE: Unable to locate package/);
    expect(question).toHaveBeenCalledTimes(asked);
    // To install, for new lists, to install again.
    expect(programs()).toEqual([program, program, program]);
    expect(said[0]).toContain(`Installing ${MISSING} with apt-get`);
  },
);

test('nothing is asked for what is there', async () => {
  asUser(1000, true, 'y');
  await ensurePackages(['bash'], 'test this');
  expect([question.mock.calls, programs()]).toEqual([[], []]);
});
