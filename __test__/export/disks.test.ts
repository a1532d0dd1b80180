import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import type * as Built from '../../src/index.ts';
import { createOverlay, exportNbd, overlayInfo, targets, UblkErrorCode } from '../../src/index.ts';
import { startVerify } from './fio.ts';
import { descriptors, folder, obstacle, patterned, sparse } from './machine.ts';

const MIB = 1 << 20;

const qemuIo = async (uri: string, ...commands: string[]): Promise<void> => {
  const words = commands.flatMap((command) => ['-c', command]);
  const { all } = await execa('qemu-io', ['-f', 'raw', ...words, uri], { all: true });
  expect(all).not.toMatch(/failed|error/i);
};

describe.skipIf(obstacle)('exported disks', () => {
  test('tell no client what another one has written, whatever the target leaves unfilled', async () => {
    await using files = await folder();
    const kept: Buffer[] = [];
    const forgetful: Built.Handler = {
      size: '1MiB',
      read: ({ data }) => void kept.push(data),
      write: ({ data }) => void kept.push(data),
    };
    for (const [name, target] of [
      ['null', targets.null({ size: '1MiB' })],
      ['forgetful', forgetful],
    ] as const) {
      await using exported = await exportNbd(target, { socket: files.at(name) });
      await qemuIo(exported.uri, 'write -P 0xaa 0 64k');
      const read = qemuIo(exported.uri, 'read -P 0 0 64k', 'read -P 0 512k 4k');
      await expect(read).resolves.toBeUndefined();
    }
  });

  test('an overlay forks while a client writes, and both disks go on by themselves', async () => {
    await using files = await folder();
    const base = await patterned(files.at('base'), 4096);
    const history = { history: '/dev/shm' };
    const disk = (layer: string) =>
      targets.overlay(targets.file(base, { readOnly: true }), files.at(layer), history);
    await createOverlay(targets.file(base, { readOnly: true }), files.at('a.layer'));
    await using exported = await exportNbd(disk('a.layer'), { socket: files.at('a') });
    await qemuIo(exported.uri, 'write -P 5 0 1M', 'flush');
    const load = startVerify(exported, '--rw=randwrite', '--offset=8M', '--size=8M');
    await exported.fork([files.at('b.layer')]);
    await load;
    await qemuIo(exported.uri, 'read -P 5 0 1M', 'write -P 6 0 4k');
    await using child = await exportNbd(disk('b.layer'), { socket: files.at('b') });
    await qemuIo(child.uri, 'read -P 5 0 1M', 'write -P 9 64k 64k');
    await qemuIo(exported.uri, 'read -P 6 0 4k', 'read -P 5 64k 64k');
    // What no layer has is the base's.
    const { stdout } = await execa('nbdinfo', ['--map', '--json', exported.uri]);
    expect((JSON.parse(stdout) as unknown[]).length).toBeGreaterThan(0);
    await exported.close();
    await execa('cmp', ['-n', String(7 * MIB), '-i', String(MIB), base, base]);
  });

  test.each([4096, 512])(
    'an overlay of blocks of %i bytes merges its layers while a client writes',
    async (logicalBlockSize) => {
      await using files = await folder();
      const base = await patterned(files.at('base'), 4096);
      const below = targets.file(base, { readOnly: true });
      await createOverlay(below, files.at('a.layer'), { logicalBlockSize });
      const disk = targets.overlay(below, files.at('a.layer'), { history: '/dev/shm' });
      await using exported = await exportNbd(disk, { socket: files.at('a') });
      await qemuIo(exported.uri, 'write -P 5 0 1M');
      const shape = [`--bs=${logicalBlockSize}`, `--size=${2048 * logicalBlockSize}`];
      const load = startVerify(exported, '--rw=randrw', '--offset=8M', ...shape);
      const frozen: string[] = [];
      for (let snapshot = 0; snapshot < 4; snapshot += 1) {
        frozen.push((await exported.snapshot()).path);
      }
      const reports: number[] = [];
      const { kept, removed } = await exported.flatten({
        prune: true,
        bytesPerSecond: '16MiB',
        onProgress: ({ done }) => reports.push(done),
      });
      expect({ kept, removed }).toEqual({ kept: [], removed: frozen.slice(0, 3).toReversed() });
      expect(reports.at(-1)).toBeGreaterThanOrEqual(MIB);
      await load;
      await qemuIo(exported.uri, 'read -P 5 0 1M');
      await exported.snapshot();
      await expect(exported.flatten({ signal: AbortSignal.abort() })).rejects.toThrow(/abort/);
      expect(await exported.flatten()).toMatchObject({ removed: [], kept: [frozen[3]] });
      await exported.close();
      expect(await overlayInfo(files.at('a.layer'))).toHaveLength(2);
    },
  );

  test('an overlay merges its layers by itself past a limit, and ends in the midst of a merge', async () => {
    await using files = await folder();
    const base = await patterned(files.at('base'), 1024);
    const below = targets.file(base, { readOnly: true });
    const layer = files.at('a.layer');
    await createOverlay(below, layer);
    const disk = targets.overlay(below, layer, { history: '/dev/shm' });
    {
      const merge = { depth: 2, garbage: 1, prune: true };
      await using exported = await exportNbd(disk, { socket: files.at('a') }, { merge });
      const frozen: string[] = [];
      for (const byte of [1, 2, 3]) {
        await qemuIo(exported.uri, `write -P ${byte} ${byte}M 512k`);
        frozen.push((await exported.snapshot()).path);
      }
      const left = () => frozen.filter((path) => existsSync(path));
      await expect.poll(left).toEqual([frozen[2]]);
      await qemuIo(exported.uri, 'read -P 1 1M 512k', 'read -P 2 2M 512k', 'read -P 3 3M 512k');
    }
    {
      await using exported = await exportNbd(disk, { socket: files.at('a') });
      await exported.snapshot();
      let ended: Promise<unknown> | undefined;
      await new Promise<void>((resolve) => {
        const onProgress = () => resolve();
        ended = exported.flatten({ bytesPerSecond: '64KiB', onProgress }).catch((error) => error);
      });
      await exported.close();
      expect(await ended).toMatchObject({ code: 'ERR_UBLK_CLOSED' });
    }
    const layers = await overlayInfo(layer);
    expect(layers.map(({ closed }) => closed)).toEqual([true, true, true]);
  });

  test.each(['file', 'nbd', 'qcow2', 'striped'])(
    'an overlay with blocks of 512 bytes on %s is what qemu makes of the same requests',
    async (kind) => {
      await using files = await folder();
      const image = await patterned(files.at('base'), 1024);
      const other = await patterned(files.at('other'), 1024, 5);
      const raw = targets.file(image, { readOnly: true });
      await using below = await exportNbd(raw, { socket: files.at('below') });
      await execa('qemu-img', ['convert', '-O', 'qcow2', image, files.at('image.qcow2')]);
      const base = {
        file: raw,
        nbd: targets.nbd(below.uri),
        qcow2: targets.qcow2(files.at('image.qcow2')),
        striped: targets.striped([raw, targets.file(other)], { chunk: 8192 }),
      }[kind]!;
      const layer = files.at('layer');
      await createOverlay(base, layer, { logicalBlockSize: 512 });
      const disk = targets.overlay(base, layer, { history: '/dev/shm' });
      await using exported = await exportNbd(disk, { socket: files.at('socket') });
      expect(exported.logicalBlockSize).toBe(512);
      await execa('nbdcopy', [exported.uri, files.at('model')]);
      // The same numbers in each run; many in the same blocks.
      const commands = Array.from({ length: 60 }, (_, step) => {
        const sector = (step * 7919) % (step % 2 === 0 ? 8000 : 64);
        const sectors = 1 + ((step * 31) % 24);
        return `write ${step % 5 === 4 ? '-z' : `-P ${step + 1}`} ${sector * 512} ${sectors * 512}`;
      });
      const together = commands.map((command) => `aio_${command}`);
      await qemuIo(files.at('model'), ...commands);
      await qemuIo(exported.uri, ...commands);
      const compare = ['compare', '-f', 'raw', '-F', 'raw', files.at('model'), exported.uri];
      expect((await execa('qemu-img', compare)).stdout).toMatch(/identical/);
      // At once, in other orders, but nowhere twice.
      const apart = together.filter((_, step) => step % 2 === 0);
      await qemuIo(files.at('model'), ...apart, 'aio_flush');
      await qemuIo(exported.uri, ...apart, 'aio_flush');
      expect((await execa('qemu-img', compare)).stdout).toMatch(/identical/);
    },
  );

  test('an overlay tells which ranges it stores, as a dirty bitmap', async () => {
    await using files = await folder();
    const base = await patterned(files.at('base'), 1024);
    const below = targets.file(base, { readOnly: true });
    await createOverlay(below, files.at('layer'));
    const disk = targets.overlay(below, files.at('layer'), { history: '/dev/shm' });
    await using exported = await exportNbd(disk, { socket: files.at('socket') });
    await qemuIo(exported.uri, 'write 1M 64k', 'write -z -u 2M 4k');
    const map = async (context: string) => {
      const { stdout } = await execa('nbdinfo', ['--json', `--map=${context}`, exported.uri]);
      return (JSON.parse(stdout) as object[]).map((extent) => Object.values(extent).slice(0, 3));
    };
    expect(await map('qemu:dirty-bitmap:diff')).toEqual([
      [0, MIB, 0],
      [MIB, 65536, 1],
      [MIB + 65536, MIB - 65536, 0],
      [2 * MIB, 4096, 1],
      [2 * MIB + 4096, 2 * MIB - 4096, 0],
    ]);
    expect(await map('base:allocation')).toEqual([
      [0, 2 * MIB, 0],
      [2 * MIB, 4096, 3],
      [2 * MIB + 4096, 2 * MIB - 4096, 0],
    ]);
  });

  test('a handler in JavaScript answers the clients', async () => {
    await using files = await folder();
    const memory = Buffer.alloc(8 * MIB, 3);
    await using exported = await exportNbd(
      {
        size: '8MiB',
        read: (request) =>
          void request.data.set(memory.subarray(request.offset, request.offset + request.length)),
        write: (request) => void memory.set(request.data, request.offset),
        flush: () => {},
      },
      { socket: files.at('socket') },
    );
    await qemuIo(exported.uri, 'read -P 3 0 8M', 'write -P 4 1M 1M', 'read -P 4 1M 1M', 'flush');
    expect(memory[MIB]).toBe(4);
    expect(exported.buffers.mode).toBe('copy');
  });

  test('a handler in worker threads answers clients of several queues', async () => {
    await using files = await folder();
    // Threads do not run TypeScript: what is tested with them is what has been built.
    const built = new URL('../../dist/index.js', import.meta.url);
    const ublk = (await import(built.href)) as typeof Built;
    await writeFile(
      files.at('disk.mjs'),
      `export default (shared) => {
        const memory = Buffer.from(shared);
        return {
          size: memory.length,
          read: ({ data, offset }) => void memory.copy(data, 0, offset),
          write: ({ data, offset }) => void data.copy(memory, offset),
        };
      };`,
    );
    const data = new SharedArrayBuffer(8 * MIB);
    const target = ublk.handlerModule(files.at('disk.mjs'), { workers: 2, data });
    await using exported = await ublk.exportNbd(target, { socket: files.at('socket') });
    await patterned(files.at('image'), 2048);
    await execa('nbdcopy', ['--connections=4', files.at('image'), exported.uri]);
    expect(Buffer.from(data).equals(await readFile(files.at('image')))).toBe(true);
    expect(exported.queues).toBe(2);
  });

  test('stripes split requests at their chunks', async () => {
    await using files = await folder();
    const parts = await Promise.all(['a', 'b'].map((name) => sparse(files.at(name), 8 * MIB)));
    const striped = targets.striped(
      parts.map((part) => targets.file(part)),
      { chunk: '64KiB' },
    );
    await using exported = await exportNbd(striped, { socket: files.at('socket') });
    await writeFile(files.at('image'), Buffer.alloc(16 * MIB, 'stripes'));
    await execa('nbdcopy', [files.at('image'), exported.uri]);
    const compare = ['compare', '-f', 'raw', '-F', 'raw', files.at('image'), exported.uri];
    await execa('qemu-img', compare);
    expect((await stat(parts[1]!)).blocks).toBeGreaterThan(0);
  });

  test('an export of an export stores everything, though the first is closed and opened again', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 32 * MIB);
    const first = () => exportNbd(targets.file(image), { socket: files.at('a') });
    const before = await first();
    await using exported = await exportNbd(targets.nbd(before.uri), { socket: files.at('b') });
    const load = startVerify(exported, '--rw=randwrite');
    await until(() => Promise.resolve(exported.stats().total.writes > 500));
    await before.close();
    await using _again = await first();
    await load;
    expect(exported.stats().total.errors).toBe(0);
  });

  test('limits and completions are those of a device', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 16 * MIB);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    exported.throttle({ iops: 1_000_000 });
    const seen = (async () => {
      for await (const { completions } of exported.completions()) return completions[0];
      return undefined;
    })();
    await qemuIo(exported.uri, 'read 64k 4k');
    expect(await seen).toMatchObject({ op: 'read', offset: 65536, length: 4096 });
  });

  test('a client that is killed under load leaves nothing, and others go on', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 64 * MIB);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    await qemuIo(exported.uri, 'read 0 4k');
    const before = await descriptors();
    const load = (name: string) =>
      execa(
        'fio',
        [
          `--name=${name}`,
          '--ioengine=nbd',
          `--uri=${exported.uri}`,
          '--rw=randrw',
          '--bssplit=4k/60:512k/40',
          '--blockalign=4k',
          '--size=64M',
          '--iodepth=32',
          '--time_based',
          '--runtime=60',
          '--thread',
        ],
        { reject: false, killSignal: 'SIGKILL' },
      );
    const clients = [load('one'), load('two')];
    await untilReads(exported, 500);
    clients.forEach((client) => client.kill('SIGKILL'));
    await Promise.all(clients);
    await qemuIo(exported.uri, 'write -P 1 0 1M', 'read -P 1 0 1M');
    await until(async () => (await descriptors()).length <= before.length);
    expect(exported.stats().total.errors).toBe(0);
  });

  test('the end of an export waits for requests and closes its socket and its connections', async () => {
    await using files = await folder();
    const before = await descriptors();
    const image = await sparse(files.at('image'), 16 * MIB);
    const slow = targets.delay(targets.file(image), { readUs: 300_000 });
    const exported = await exportNbd(slow, { socket: files.at('socket') });
    const client = execa('qemu-io', ['-f', 'raw', '-c', 'read 0 4k', exported.uri], { all: true });
    await until(() => Promise.resolve(exported.stats().total.enters > 4));
    await exported.close();
    expect((await client).all).toContain('read 4096/4096');
    await expect(stat(files.at('socket'))).rejects.toThrow('ENOENT');
    await until(async () => (await descriptors()).length <= before.length);
  });
});

describe.skipIf(obstacle)('an address', () => {
  test('of a socket that a server has is refused, and of a dead server replaced', async () => {
    await using files = await folder();
    const socket = files.at('socket');
    const target = targets.null({ size: '1MiB' });
    const exported = await exportNbd(target, { socket });
    await expect(exportNbd(target, { socket })).rejects.toMatchObject({ code: UblkErrorCode.Busy });
    await exported.close();
    await execa(process.execPath, [
      '--eval',
      `require('net').createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 9))`,
    ]).catch(() => {});
    expect((await stat(socket)).isSocket()).toBe(true);
    await using again = await exportNbd(target, { socket });
    expect(again.uri).toContain(socket);
  });

  test('of a plain file is refused, and the file stays', async () => {
    await using files = await folder();
    await writeFile(files.at('file'), 'data');
    const refused = exportNbd(targets.null({ size: '1MiB' }), { socket: files.at('file') });
    await expect(refused).rejects.toMatchObject({ code: UblkErrorCode.InvalidArgument });
    expect(await readFile(files.at('file'), 'utf8')).toBe('data');
  });

  test('of a port in use is refused, and port 0 is any free port of the loopback', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const target = targets.null({ size: '1MiB' });
    await expect(exportNbd(target, { port })).rejects.toMatchObject({ code: UblkErrorCode.Busy });
    server.close();
    await using exported = await exportNbd(target, { port: 0 });
    expect(exported.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/$/);
    await execa('nbdinfo', ['--size', exported.uri]);
  });

  test('with more connections than requests at once is refused, and not taken', async () => {
    await using files = await folder();
    const target = targets.null({ size: '1MiB' });
    const refused = exportNbd(target, { socket: files.at('socket') }, { depth: 8 });
    await expect(refused).rejects.toThrow('depth is 8, less than the 16 connections of the export');
    await expect(stat(files.at('socket'))).rejects.toThrow('ENOENT');
  });

  test('serves again as soon as the export before has closed', async () => {
    const target = targets.null({ size: '1MiB' });
    const first = await exportNbd(target, { port: 0 });
    const port = Number(new URL(first.uri).port);
    await execa('nbdinfo', ['--size', first.uri]);
    await first.close();
    await using second = await exportNbd(target, { port });
    expect((await execa('nbdinfo', ['--size', second.uri])).stdout).toBe(String(MIB));
  });
});

async function until(happened: () => Promise<boolean>): Promise<void> {
  while (!(await happened())) await new Promise((resolve) => setTimeout(resolve, 10));
}

function untilReads(
  exported: { stats(): { total: { reads: number } } },
  count: number,
): Promise<void> {
  return until(() => Promise.resolve(exported.stats().total.reads > count));
}
