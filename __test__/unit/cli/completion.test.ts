import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import { completion, type Shell } from '../../../src/cli/commands/completion.ts';
import { createProgram } from '../../../src/cli/program.ts';
import { runCli } from '../../../src/cli/run.ts';
import { findProgram } from '../../../scripts/debian.ts';

// A shell on a loaded machine takes seconds to start.
vi.setConfig({ testTimeout: 60_000 });

const SHELLS: readonly Shell[] = ['bash', 'zsh', 'fish'];
const folder = mkdtempSync(join(tmpdir(), 'ublk-completion-'));

/** What `run` writes to standard output. */
async function outputOf(run: () => unknown): Promise<string> {
  let output = '';
  const spy = vi.spyOn(process.stdout, 'write');
  spy.mockImplementation((text) => ((output += String(text)), true));
  try {
    await run();
  } finally {
    spy.mockRestore();
  }
  return output;
}

beforeAll(async () => {
  for (const shell of SHELLS) {
    const script = await outputOf(() => completion(createProgram(), shell));
    writeFileSync(join(folder, `ublk.${shell}`), script);
  }
  writeFileSync(join(folder, 'disk.img'), '');
});

afterAll(() => rmSync(folder, { recursive: true }));

/** What a shell offers for the last of the words. */
async function offered(shell: Shell, words: readonly string[]): Promise<string[]> {
  const line = words.join(' ');
  const scripts: Record<Shell, readonly string[]> = {
    bash: ['-c', BASH, 'bash', ...words],
    fish: ['-c', `source ublk.fish; complete -C '${line}'`],
    zsh: ['-fc', `line='${line}'; ${ZSH}`],
  };
  const { stdout } = await execa(shell, scripts[shell], { cwd: folder, env: { HOME: folder } });
  const lines = stdout.split('\n').map((text) => text.split('\t')[0]!.trim());
  return lines.filter((text) => text !== '').sort();
}

const BASH = `
source ./ublk.bash
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ublk
printf '%s\\n' "\${COMPREPLY[@]}"`;

/** The words that the completion would add, without a terminal. */
const ZSH = `
compdef() { :; }
source ./ublk.zsh
compadd() {
  local array
  if (( \${argv[(I)-a]} )); then array=\${argv[-1]}; print -l -- "\${(@P)array}"
  else print -l -- "\${argv[@]:#-*}"; fi
}
_describe() { local item; for item in "\${(@P)argv[-1]}"; print -r -- "\${item%%:*}"; }
_files() { print -l -- *.img; }
words=("\${(@s: :)line}"); CURRENT=\${#words}
_ublk`;

const add = ['delay', 'error', 'file', 'linear', 'null', 'striped', 'zoned'];

for (const shell of SHELLS) {
  test.runIf(findProgram(shell)).each<[string, readonly string[]]>([
    ['ublk add |', add],
    ['ublk recover 0 |', add],
    ['ublk add file disk.img --recovery |', ['fail', 'queue', 'reissue']],
    ['ublk add null --pid-file d|', ['disk.img']],
    ['ublk add file d|', ['disk.img']],
    ['ublk add --queues 2 file d|', ['disk.img']],
    ['ublk add overlay d|', ['disk.img']],
    ['ublk overlay info d|', ['disk.img']],
    ['ublk overlay fork --history d|', ['disk.img']],
    ['ublk serve d|', ['disk.img']],
    ['ublk completion |', ['bash', 'fish', 'zsh']],
  ])(`${shell} completes %s`, async (line, expected) => {
    const words = line.slice(0, -1).split(' ');
    expect(await offered(shell, words)).toEqual(expect.arrayContaining([...expected]));
  });

  test.runIf(findProgram(shell))(`${shell} offers each command`, async () => {
    const help = await outputOf(() => runCli(['--help']));
    const commands = [...help.matchAll(/^ {2}([a-z][a-z-]+) /gm)].map(([, name]) => name!);
    expect(commands.length).toBeGreaterThan(10);
    const shown = await offered(shell, ['ublk', '']);
    expect(shown).toEqual(commands.filter((name) => name !== 'help').sort());
  });

  test.runIf(findProgram(shell)).each(['add file', 'recover 0 file', 'recover 0 zoned', 'delete'])(
    `${shell} offers the options that ublk %s has`,
    async (command) => {
      const help = await outputOf(() => runCli([...command.split(' '), '--help']));
      const options = [...help.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, name]) => name!);
      expect(options).toContain('--json');
      const shown = await offered(shell, ['ublk', ...command.split(' '), '--']);
      expect(shown).toEqual(options.sort());
    },
  );
}

test('bash knows the function that completes ublk', async () => {
  const { stdout } = await execa('bash', ['-c', 'source ./ublk.bash; complete -p ublk'], {
    cwd: folder,
  });
  expect(stdout).toBe('complete -F _ublk ublk');
});
