import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { ignoredSignals } from '../../../src/cli/ignored.ts';
import { reloads } from '../../../src/cli/reloads.ts';
import { Service } from '../../../src/service/service.ts';

const UBLK = fileURLToPath(new URL('../../../bin/ublk', import.meta.url));

describe('the signals that the starter ignores', () => {
  const bit = (name: NodeJS.Signals) => 1n << BigInt(constants.signals[name] - 1);
  const note = (pid: number, mask: bigint) => `${pid}:${mask.toString(16).padStart(16, '0')}`;

  test.each([
    [bit('SIGHUP'), ['SIGHUP']],
    [bit('SIGINT') | bit('SIGQUIT'), ['SIGINT', 'SIGQUIT']],
    [bit('SIGPIPE') | bit('SIGTERM'), ['SIGTERM']],
    [0n, []],
  ])('are read from the note of this process: %s', (mask, names) => {
    expect(ignoredSignals(note(7, mask), [7, 1])).toEqual(names);
  });

  test('are not those of a process long gone, nor of a note that is none', () => {
    expect(ignoredSignals(note(8, bit('SIGHUP')), [7, 1])).toEqual([]);
    expect(ignoredSignals('7:', [7])).toEqual([]);
    expect(ignoredSignals(undefined, [7])).toEqual([]);
  });

  test.each([
    [0n, 1],
    [bit('SIGHUP'), 0],
  ])('are no reload of a service, as under nohup: %s', async (mask, listeners) => {
    vi.stubEnv('UBLK_IGNORED_SIGNALS', note(process.pid, mask));
    onTestFinished(() => void vi.unstubAllEnvs());
    const before = process.listenerCount('SIGHUP');
    const nothing = { done() {}, failed() {}, async listen() {}, reloading() {}, ready() {} };
    await using service = new Service();
    {
      await using _ = reloads(service, '/nowhere', new AbortController().signal, nothing);
      expect(process.listenerCount('SIGHUP') - before).toBe(listeners);
    }
    expect(process.listenerCount('SIGHUP')).toBe(before);
  });

  test.each(['HUP', 'INT', 'TERM'])(
    'are noted by bin/ublk before Node starts: %s',
    async (name) => {
      const show =
        '--import=data:text/javascript,console.log(process.pid,process.env.UBLK_IGNORED_SIGNALS)';
      const ignore = `trap "" ${name}; exec "$0" --version`;
      const { stdout } = await execa('sh', ['-c', ignore, UBLK], { env: { NODE_OPTIONS: show } });
      const [pid, text] = stdout.split('\n')[0]!.split(' ');
      expect(ignoredSignals(text, [Number(pid)])).toEqual([`SIG${name}`]);
    },
  );
});

describe('a command whose reader ends', () => {
  test.each(['help add file', 'add null --help'])(
    '%s | head -1 ends in good order',
    async (words) => {
      const script = `{ "$0" ${words}; echo $? >&2; } | head -1`;
      const { stdout, stderr } = await execa('sh', ['-c', script, UBLK]);
      expect(stdout).toMatch(/^Usage: ublk/);
      expect(stderr).toBe('0');
    },
  );

  test('fails if its answer is lost for another reason', async () => {
    const script = '"$0" --version >/dev/full';
    expect(await execa('sh', ['-c', script, UBLK], { reject: false })).toMatchObject({
      exitCode: 1,
    });
  });
});
