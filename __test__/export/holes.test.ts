import { open, stat } from 'node:fs/promises';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { createOverlay, exportNbd, targets, type NbdExport } from '../../src/index.ts';
import { needServer, nbdkit, qemuNbd } from '../kernel/nbd-server.ts';
import { folder, obstacle, sparse } from './machine.ts';

const MIB = 1 << 20;
const DATA = 0;
const HOLE = 3;

/** The extents of an export: offset, length and type. */
async function map({ uri }: NbdExport): Promise<unknown[]> {
  const { stdout } = await execa('nbdinfo', ['--map', '--json', uri]);
  return (JSON.parse(stdout) as object[]).map((extent) => Object.values(extent).slice(0, 3));
}

/** A file of 64 MiB with 1 MiB of data at 16 MiB. */
async function image(path: string): Promise<string> {
  await sparse(path, 64 * MIB);
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(MIB, 'data'), 0, MIB, 16 * MIB);
  return path;
}

const SERVERS = [
  ['nbdkit', (disk: string) => nbdkit('file', disk)],
  ['qemu', (disk: string) => qemuNbd(disk, '--shared=8')],
] as const;

describe.skipIf(obstacle)('an export of an NBD server', () => {
  test.for(SERVERS)('has the holes that %s has', async ([kind, serve], context) => {
    needServer(context, kind);
    await using files = await folder();
    const server = await serve(await image(files.at('image')));
    const target = targets.nbd(server.uri);
    await using exported = await exportNbd(target, { socket: files.at('socket') });
    expect(await map(exported)).toEqual([
      [0, 16 * MIB, HOLE],
      [16 * MIB, MIB, DATA],
      [17 * MIB, 47 * MIB, HOLE],
    ]);
    await execa('nbdcopy', [exported.uri, files.at('copy')]);
    expect(exported.stats().total.readBytes).toBe(MIB);
    await execa('cmp', [files.at('image'), files.at('copy')]);
    const write = ['-f', 'raw', '-c', 'write -P 1 32M 64k', exported.uri];
    await execa('qemu-io', write);
    expect((await map(exported)).slice(2)).toEqual([
      [17 * MIB, 15 * MIB, HOLE],
      [32 * MIB, 65536, DATA],
      [32 * MIB + 65536, 32 * MIB - 65536, HOLE],
    ]);
    await server.kill();
    expect(await map(exported)).toEqual([[0, 64 * MIB, DATA]]);
  });

  test('below an overlay has the holes that no layer has filled', async (context) => {
    needServer(context, 'nbdkit');
    await using files = await folder();
    const server = await nbdkit('file', await image(files.at('image')));
    const base = targets.nbd(server.uri, { readOnly: true });
    await createOverlay(base, files.at('layer'));
    const disk = targets.overlay(base, files.at('layer'), { history: '/dev/shm' });
    await using exported = await exportNbd(disk, { socket: files.at('socket') });
    await execa('qemu-io', ['-f', 'raw', '-c', 'write -P 1 32M 64k', exported.uri]);
    expect(await map(exported)).toEqual([
      [0, 16 * MIB, HOLE],
      [16 * MIB, MIB, DATA],
      [17 * MIB, 15 * MIB, HOLE],
      [32 * MIB, 65536, DATA],
      [32 * MIB + 65536, 32 * MIB - 65536, HOLE],
    ]);
    await execa('nbdcopy', [exported.uri, files.at('copy')]);
    expect((await stat(files.at('copy'))).blocks * 512).toBeLessThan(2 * MIB);
  });
});
