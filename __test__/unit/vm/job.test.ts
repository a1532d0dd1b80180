import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { type Job, commandScript, jobScript, passedEnvironment } from '../../../vm/job.ts';

const job: Job = {
  command: ['true'],
  cwd: '/',
  env: {},
  modules: '/modules',
  shares: new Map(),
  keep: [],
  limit: 0,
  init: 'script',
  root: '',
  steady: true,
  terminal: '',
};

function shell(script: string): string {
  return execFileSync('sh', { input: script, encoding: 'utf8' });
}

test('the shell gives the command its very arguments, whatever they contain', () => {
  const words = ["it's", '$HOME `id` "x"', 'two\nlines', '', '*'];
  const command = [process.execPath, '-p', 'JSON.stringify(process.argv.slice(1))', ...words];
  expect(JSON.parse(shell(commandScript({ ...job, command })))).toEqual(words);
});

test('variables and directory reach the command', () => {
  const command = ['sh', '-c', 'echo "$PWD $UBLK_TEST"'];
  const script = commandScript({ ...job, command, cwd: '/usr/bin', env: { UBLK_TEST: "a 'b'" } });
  expect(shell(script)).toBe("/usr/bin a 'b'\n");
});

test('a directory that is not there ends it with status 126', () => {
  expect(() => shell(commandScript({ ...job, cwd: '/nowhere' }))).toThrow(
    expect.objectContaining({ status: 126 }),
  );
});

test('the folders to share and to keep are one to a line, kept only below /tmp', () => {
  const shares = new Map([
    ['share0', '/srv/a b'],
    ['share1', '/c'],
  ]);
  const script = jobScript({ ...job, shares, keep: ['/home/x', '/tmp/x'] });
  expect(shell(`${script}echo "$shares"; echo "$keep"`)).toBe(
    'share0 /srv/a b\nshare1 /c\n/tmp/x\n',
  );
});

test('only listed variables are passed on, and the PATH finds system programs', () => {
  const passed = passedEnvironment({ PATH: '/opt/bin', UBLK_SEED: '7', SECRET_TOKEN: 'x' });
  expect(passed).not.toHaveProperty('SECRET_TOKEN');
  expect(passed.UBLK_SEED).toBe('7');
  expect(passed.PATH).toMatch(/^\/opt\/bin:.*\/usr\/sbin/);
});
