import { readFile, stat } from 'node:fs/promises';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { createOverlay, exportNbd, targets, type NbdExport } from '../../src/index.ts';
import { simulate } from '../../src/testing/index.ts';
import { newQemuNbd } from '../kernel/nbd-server.ts';
import { newProgram } from '../nbd-tools.ts';
import { folder, obstacle, patterned, sparse } from './machine.ts';

const MIB = 1 << 20;
const GIB = 1 << 30;

/** What nbdinfo says of the replies. */
async function packets(nbdinfo: string, { uri }: NbdExport): Promise<string | undefined> {
  const { stdout } = await execa(nbdinfo, [uri]);
  return /using (\w+) packets/.exec(stdout)?.[1];
}

async function map(nbdinfo: string, { uri }: NbdExport): Promise<unknown[]> {
  const { stdout } = await execa(nbdinfo, ['--map', '--json', uri]);
  return (JSON.parse(stdout) as object[]).map((extent) => Object.values(extent).slice(0, 3));
}

describe.skipIf(obstacle)('programs with extended headers', () => {
  test('negotiate them, and older programs do not', async (context) => {
    const nbdinfo = newProgram(context, 'nbdinfo');
    await using files = await folder();
    const target = targets.null({ size: '1MiB' });
    await using exported = await exportNbd(target, { socket: files.at('socket') });
    expect(await packets(nbdinfo, exported)).toBe('extended');
    // libnbd asks for less where the URI says so; a program of another release is asked, too.
    expect(await packets('nbdinfo', exported)).toMatch(/^(structured|extended)$/);
  });

  test('hear of an extent of more than 4 GiB at once', async (context) => {
    const nbdinfo = newProgram(context, 'nbdinfo');
    await using files = await folder();
    const base = targets.file(await sparse(files.at('base'), 64 * GIB));
    await createOverlay(base, files.at('layer'));
    const disk = targets.overlay(base, files.at('layer'), { history: '/dev/shm' });
    await using exported = await exportNbd(disk, { socket: files.at('socket') });
    const write = ['-f', 'raw', '-c', 'write -P 1 40G 64k', exported.uri];
    await execa(newProgram(context, 'qemu-io'), write);
    expect(await map(nbdinfo, exported)).toEqual([
      [0, 40 * GIB, 3],
      [40 * GIB, 65536, 0],
      [40 * GIB + 65536, 24 * GIB - 65536, 3],
    ]);
    expect(await map(nbdinfo, exported)).toEqual(await map('nbdinfo', exported));
  });

  test('copy from an export and to an export, compare, and convert', async (context) => {
    const [nbdcopy, img] = [newProgram(context, 'nbdcopy'), newProgram(context, 'qemu-img')];
    await using files = await folder();
    const image = await patterned(files.at('image'), 4096, 1);
    const where = (name: string) => ({ socket: files.at(name) });
    await using from = await exportNbd(targets.file(image), where('a'), { queues: 2 });
    for (const program of ['nbdcopy', 'qemu-img']) {
      const copy = await sparse(files.at('copy'), 32 * MIB);
      await using to = await exportNbd(targets.file(copy), where('b'), { queues: 2 });
      if (program === 'nbdcopy')
        await execa(nbdcopy, ['--flush', '--connections=4', from.uri, to.uri]);
      else await execa(img, ['convert', '-n', '-f', 'raw', '-O', 'raw', from.uri, to.uri]);
      const { stdout } = await execa(img, ['compare', '-f', 'raw', '-F', 'raw', image, to.uri]);
      expect(stdout).toContain('identical');
      expect((await readFile(copy)).equals(await readFile(image))).toBe(true);
      expect((await stat(copy)).blocks * 512).toBeLessThan(24 * MIB);
    }
  });

  test('write zeros, discard, and write durably', async (context) => {
    const io = newProgram(context, 'qemu-io');
    await using files = await folder();
    const image = await sparse(files.at('image'), 64 * MIB);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    const commands = ['write -P 7 0 8M', 'write -f -P 8 8M 64k', 'write -z 1M 2M', 'discard 6M 1M'];
    commands.push('flush', 'read -P 7 0 1M', 'read -P 0 1M 2M', 'read -P 8 8M 64k', 'read 60M 4M');
    const words = commands.flatMap((command) => ['-c', command]);
    const options = ['-f', 'raw', '-t', 'none', '-d', 'unmap'];
    const { stdout } = await execa(io, [...options, ...words, exported.uri]);
    expect(stdout).not.toMatch(/failed|error/i);
    const { discards, writeZeroes } = exported.stats().total;
    expect({ discards, writeZeroes }).toEqual({ discards: 1, writeZeroes: 1 });
  });
});

describe.skipIf(obstacle)('targets.nbd on a server with extended headers', () => {
  test('serves a simulated disk, and tells the holes', async (context) => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 8 * GIB);
    const server = await newQemuNbd(context, image, '--shared=8');
    const target = targets.nbd(server.uri);
    {
      await using disk = await simulate(target);
      const data = Buffer.alloc(MIB, 'data');
      await disk.write(4 * GIB, data, { fua: true });
      await disk.writeZeroes(4 * GIB, 4096);
      await disk.discard(0, 65_536);
      await disk.flush();
      data.fill(0, 0, 4096);
      expect((await disk.read(4 * GIB, MIB)).equals(data)).toBe(true);
    }
    await using exported = await exportNbd(target, { socket: files.at('socket') });
    const extents = await map('nbdinfo', exported);
    expect(extents.at(-1)).toEqual([4 * GIB + MIB, 4 * GIB - MIB, 3]);
    expect(server.log()).toMatch(/magic = 0x21e41c71/);
    expect(server.log()).not.toMatch(/magic = 0x25609513/);
  });
});
