import { randomUUID } from 'node:crypto';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { writePidFile } from '../../../src/cli/pid-file.ts';

vi.mock(import('node:crypto'), async (original) => ({
  ...(await original()),
  randomUUID: vi.fn<typeof randomUUID>((await original()).randomUUID),
}));

const line = `${process.pid}\n`;

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'ublk-pid-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

describe('a pid file', () => {
  test('holds the process id, alone in its folder, until it is disposed of', async () => {
    const at = folder();
    const file = await writePidFile(join(at, 'pid'));
    expect(readdirSync(at)).toEqual(['pid']);
    expect(readFileSync(join(at, 'pid'), 'utf8')).toBe(line);
    await file[Symbol.asyncDispose]();
    expect(readdirSync(at)).toEqual([]);
  });

  test('follows no link that lies in the place of its draft, and leaves the link', async () => {
    const at = folder();
    const [victim, path] = [join(at, 'victim'), join(at, 'pid')];
    writeFileSync(victim, 'precious');
    vi.mocked(randomUUID).mockReturnValueOnce('0-0-0-0-0');
    for (const name of ['0-0-0-0-0', String(process.pid)]) symlinkSync(victim, `${path}.${name}`);
    await expect(writePidFile(path)).rejects.toMatchObject({ code: 'ERR_UBLK_INVALID_ARGUMENT' });
    await (await writePidFile(path))[Symbol.asyncDispose]();
    expect(readFileSync(victim, 'utf8')).toBe('precious');
    expect(lstatSync(`${path}.0-0-0-0-0`).isSymbolicLink()).toBe(true);
  });

  test('takes the place of a link, whose file stays as it was', async () => {
    const at = folder();
    const [victim, path] = [join(at, 'victim'), join(at, 'pid')];
    writeFileSync(victim, 'precious');
    symlinkSync(victim, path);
    await writePidFile(path);
    expect(lstatSync(path).isFile()).toBe(true);
    expect(readFileSync(victim, 'utf8')).toBe('precious');
  });

  test('of another process, which has come meanwhile, is left', async () => {
    const path = join(folder(), 'pid');
    const file = await writePidFile(path);
    writeFileSync(path, '1\n');
    await file[Symbol.asyncDispose]();
    expect(readFileSync(path, 'utf8')).toBe('1\n');
  });

  test('is removed at the end of the process, if that comes first', async () => {
    const at = folder();
    const file = await writePidFile(join(at, 'pid'));
    const [remove] = process.listeners('exit').slice(-1);
    remove?.(0);
    expect(readdirSync(at)).toEqual([]);
    await file[Symbol.asyncDispose]();
    expect(process.listeners('exit')).not.toContain(remove);
  });

  test('that cannot be written leaves nothing behind', async () => {
    const at = folder();
    mkdirSync(join(at, 'pid'));
    await expect(writePidFile(join(at, 'pid'))).rejects.toThrow('cannot write the pid file');
    expect(readdirSync(at)).toEqual(['pid']);
  });
});
