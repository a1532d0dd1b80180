import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { exportNbd, targets } from '../../src/index.ts';
import { folder, obstacle, patterned, sparse } from './machine.ts';

const MIB = 1 << 20;

describe.skipIf(obstacle)('the programs of other projects', () => {
  test('nbdinfo reads the name, the size, the block sizes and what the export can do', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 64 * MIB);
    await using exported = await exportNbd(
      targets.file(image),
      { socket: files.at('socket') },
      { name: 'a disk/1', description: 'the first' },
    );
    const { stdout } = await execa('nbdinfo', ['--json', exported.uri]);
    const [found] = (JSON.parse(stdout) as { exports: Record<string, unknown>[] }).exports;
    expect(found).toMatchObject({
      'export-name': 'a disk/1',
      description: 'the first',
      'export-size': 64 * MIB,
      contexts: ['base:allocation'],
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_maximum: 32 * MIB,
    });
    const listed = await execa('nbdinfo', ['--list', `nbd+unix:///?socket=${files.at('socket')}`]);
    expect(listed.stdout).toContain('export="a disk/1"');
  });

  test('a read-only export refuses writes and says so', async () => {
    await using files = await folder();
    const image = await patterned(files.at('image'), 16);
    await using exported = await exportNbd(
      targets.file(image),
      { socket: files.at('socket') },
      { readOnly: true },
    );
    expect(exported.readOnly).toBe(true);
    const { exitCode } = await execa('nbdinfo', ['--can', 'write', exported.uri], {
      reject: false,
    });
    expect(exitCode).toBe(2);
    const write = ['-f', 'raw', '-c', 'write 0 4096', exported.uri];
    const refused = await execa('qemu-io', write, { reject: false, all: true });
    expect(refused.exitCode).not.toBe(0);
    expect(exported.stats().total.writes).toBe(0);
  });

  test('nbdcopy copies from an export and to an export, over several connections', async () => {
    await using files = await folder();
    const image = await patterned(files.at('image'), 4096, 1);
    const copy = await sparse(files.at('copy'), 32 * MIB);
    const where = (name: string) => ({ socket: files.at(name) });
    await using from = await exportNbd(targets.file(image), where('a'), { queues: 2 });
    await using to = await exportNbd(targets.file(copy), where('b'), { queues: 2 });
    await execa('nbdcopy', ['--flush', '--connections=4', from.uri, to.uri]);
    expect((await readFile(copy)).equals(await readFile(image))).toBe(true);
    await execa('nbdcopy', [from.uri, files.at('out')]);
    expect((await readFile(files.at('out'))).equals(await readFile(image))).toBe(true);
    // Holes are found and not copied.
    const { blocks } = await stat(files.at('out'));
    expect(blocks * 512).toBeLessThan(24 * MIB);
  });

  test('libnbd without its own checks is answered as the protocol says', async (context) => {
    const python = '/usr/bin/python3';
    const found = await execa(python, ['-c', 'import nbd'], { reject: false });
    if (found.failed) context.skip('no libnbd for Python: apt-get install python3-libnbd');
    await using files = await folder();
    const image = await sparse(files.at('image'), 16 * MIB);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    const script = join(import.meta.dirname, 'libnbd.py');
    const { stderr } = await execa(python, [script, exported.uri], { reject: false });
    expect(stderr).toBe('');
    expect(exported.stats().total.errors).toBe(0);
  });

  test('nbdinfo --map shows the holes of a file', async () => {
    await using files = await folder();
    const image = await patterned(files.at('image'), 64, 15);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    const { stdout } = await execa('nbdinfo', ['--map', '--json', exported.uri]);
    const map = JSON.parse(stdout) as { length: number; type: number }[];
    expect(map.slice(0, 2)).toMatchObject([
      { offset: 0, length: 4096, type: 0 },
      { offset: 4096, length: 61440, type: 3 },
    ]);
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(64 * 65536);
  });

  test('qemu-img compares with an export and converts to an export, raw and qcow2', async () => {
    await using files = await folder();
    const image = await patterned(files.at('image'), 2048, 3);
    await using from = await exportNbd(targets.file(image), { socket: files.at('a') });
    await execa('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, from.uri]);
    for (const format of ['raw', 'qcow2']) {
      const copy = await sparse(files.at(`${format}.img`), 40 * MIB);
      await using to = await exportNbd(targets.file(copy), { socket: files.at('b') });
      if (format === 'qcow2') {
        const size = String((await stat(image)).size);
        await execa('qemu-img', ['create', '-f', 'qcow2', to.uri, size]);
      }
      await execa('qemu-img', ['convert', '-n', '-f', 'raw', '-O', format, from.uri, to.uri]);
      const compare = ['compare', '-f', 'raw', '-F', format, image, to.uri];
      const { stdout } = await execa('qemu-img', compare);
      expect(stdout).toContain('identical');
      if (format === 'qcow2') await execa('qemu-img', ['check', '-f', 'qcow2', to.uri]);
    }
  });

  test('qemu-io writes zeros, discards, and writes durably', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 64 * MIB);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    const commands = [
      'write -P 7 0 8M',
      'write -f -P 8 8M 64k',
      'write -z 1M 2M',
      'write -z -u 4M 1M',
      'discard 6M 1M',
      'flush',
      'read -P 7 0 1M',
      'read -P 0 1M 2M',
      'read -P 7 3M 1M',
      'read -P 0 4M 1M',
      'read -P 8 8M 64k',
    ];
    const { stdout } = await execa('qemu-io', [
      '-f',
      'raw',
      '-t',
      'none',
      '-d',
      'unmap',
      exported.uri,
      ...commands.flatMap((command) => ['-c', command]),
    ]);
    expect(stdout).not.toMatch(/failed|error/i);
    const { discards, writeZeroes, flushes } = exported.stats().total;
    expect({ discards, writeZeroes }).toEqual({ discards: 1, writeZeroes: 2 });
    expect(flushes).toBeGreaterThan(0);
  });

  test.each([
    ['a Unix socket', (file: string) => ({ socket: file })],
    ['TCP', () => ({ port: 0 })],
  ])('fio verifies what it writes, over %s', async (_kind, address) => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 32 * MIB);
    await using exported = await exportNbd(targets.file(image), address(files.at('socket')));
    await execa('fio', [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${exported.uri}`,
      '--rw=randwrite',
      '--bssplit=4k/60:16k/20:256k/15:3M/5',
      '--blockalign=4k',
      '--size=32M',
      '--iodepth=32',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--randrepeat=0',
      '--fsync=32',
    ]);
    expect(exported.stats().total.reads).toBeGreaterThan(0);
  });
});
