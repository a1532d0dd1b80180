import { execa } from 'execa';
import { expect, test } from 'vitest';

import { findProgram } from '../../../scripts/debian.ts';
import { manPage } from '../../../scripts/man/page.ts';
import { createProgram } from '../../../src/cli/program.ts';

const page = manPage(createProgram(), '2026-01-01');

test('the manual page has each command with its example, and each option', () => {
  const plain = page.replaceAll(String.raw`\-`, '-');
  expect(plain).toContain('.SH "UBLK ADD FILE"');
  expect(plain).toContain('\nublk add file disk.img --queues 2 --pid-file /run/disk.pid\n');
  for (const command of createProgram().commands.filter((one) => one.name() !== 'owner')) {
    expect(plain).toContain(`.B ublk ${command.name()} `);
    for (const target of command.commands) {
      for (const { flags } of target.options) expect(plain).toContain(`.B "${flags}"`);
    }
  }
  // Options that all targets have are described once.
  expect(plain.split('.B "--rings-apart"').length).toBe(2);
  expect(plain).not.toContain('UBLK OWNER');
});

test.runIf(findProgram('mandoc'))('mandoc finds nothing wrong with the manual page', async () => {
  const { stdout } = await execa('mandoc', ['-T', 'lint', '-W', 'warning'], { input: page });
  expect(stdout).toBe('');
});

test.runIf(findProgram('man'))('man finds nothing wrong with the manual page', async () => {
  const args = ['--warnings', '--local-file', '--encoding=UTF-8', '-Tutf8', '--ditroff', '-'];
  const { stderr } = await execa('man', args, { input: page, env: { LC_ALL: 'C.UTF-8' } });
  expect(stderr).toBe('');
});
