import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { createOverlay, exportNbd, targets } from '../../src/index.ts';
import { folder, obstacle, patterned, sparse } from './machine.ts';

const UBLK = fileURLToPath(new URL('../../bin/ublk', import.meta.url));

/** Makes a way to run commands as on a kernel that refuses something, through the program `refuse` at the path. */
async function kernelWithout(what: 'io_uring' | 'tls', refuse: string) {
  const source = fileURLToPath(new URL('refuse.c', import.meta.url));
  await execa('cc', ['-o', refuse, source]);
  return async (...command: string[]) => await execa(refuse, [what, ...command], { reject: false });
}

test.skipIf(obstacle)('an export that is cancelled leaves nothing', async () => {
  await using files = await folder();
  const target = targets.null({ size: '1MiB' });
  const stop = new AbortController();
  const made = exportNbd(target, { socket: files.at('socket') }, { signal: stop.signal });
  stop.abort(new Error('enough'));
  await expect(made).rejects.toThrow('enough');
  expect(existsSync(files.at('socket'))).toBe(false);
});

test.skipIf(obstacle)('the example exports an image until a signal', async () => {
  await using files = await folder();
  const image = await patterned(files.at('image'), 16);
  const example = fileURLToPath(new URL('../../examples/export-image.ts', import.meta.url));
  const server = execa(process.execPath, ['--import', 'tsx', example, image, files.at('socket')], {
    reject: false,
  });
  const [line] = (await once(server.stdout, 'data')) as [Buffer];
  const uri = line.toString().trim();
  await execa('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, uri]);
  server.kill('SIGINT');
  expect((await server).stdout).toMatch(/\d+ reads \(64 KiB\), 0 writes/);
});

describe.skipIf(obstacle)('a program with an export under load', () => {
  test.each([
    ['process.exit(3)', 3],
    ["throw new Error('no listener')", 1],
    ['exported.unref()', 0],
  ])('ends with %s, and leaves no socket', async (end, status) => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 16 << 20);
    const built = new URL('../../dist/index.js', import.meta.url);
    const program = `
      import { exportNbd, targets } from '${built.href}';
      const [image, socket] = process.argv.slice(1);
      const exported = await exportNbd(targets.file(image), { socket });
      console.log(exported.uri);
      const look = setInterval(() => {
        if (exported.stats().total.writes < 1000) return;
        clearInterval(look);
        ${end};
      }, 20);
    `;
    const words = ['--input-type=module', '--eval', program, image, files.at('socket')];
    const server = execa(process.execPath, words, { reject: false });
    const [line] = (await once(server.stdout, 'data')) as [Buffer];
    const uri = `--uri=${line.toString().trim()}`;
    const load = ['--rw=randwrite', '--bs=4k', '--size=16M', '--iodepth=16', '--time_based'];
    const client = execa(
      'fio',
      ['--name=load', '--thread', '--ioengine=nbd', uri, '--runtime=60', ...load],
      { reject: false },
    );
    expect((await server).exitCode).toBe(status);
    expect(existsSync(files.at('socket'))).toBe(false);
    await client;
  });
});

describe.skipIf(obstacle)('ublk export', () => {
  test('prints the URI when clients can connect, and ends in good order at SIGTERM', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 1 << 20);
    const words = ['export', 'file', image, '--socket', files.at('socket'), '--name', 'disk'];
    const server = execa(UBLK, words, { reject: false });
    const [line] = (await once(server.stdout, 'data')) as [Buffer];
    const uri = line.toString().trim();
    expect(uri).toBe(`nbd+unix:///disk?socket=${files.at('socket')}`);
    expect((await execa('nbdinfo', ['--size', uri])).stdout).toBe(String(1 << 20));
    server.kill('SIGTERM');
    const { exitCode, stderr } = await server;
    expect({ exitCode, stderr }).toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining(' closed: '),
    });
  });

  test('serves an overlay read-only on a free port, in words for programs', async () => {
    await using files = await folder();
    const base = await patterned(files.at('base'), 256);
    await createOverlay(targets.file(base, { readOnly: true }), files.at('layer'));
    const words = ['export', 'overlay', base, files.at('layer'), '--history', '/dev/shm'];
    const how = ['--port', '0', '--read-only', '--json'];
    const server = execa(UBLK, [...words, ...how], { reject: false });
    const [line] = (await once(server.stdout, 'data')) as [Buffer];
    const { uri, readOnly } = JSON.parse(line.toString()) as { uri: string; readOnly: boolean };
    expect(readOnly).toBe(true);
    await execa('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', base, uri]);
    server.kill('SIGINT');
    expect((await server).exitCode).toBe(0);
  });

  test('a server that is killed has stored what it had flushed', async () => {
    await using files = await folder();
    const base = await sparse(files.at('base'), 16 << 20);
    await createOverlay(targets.file(base, { readOnly: true }), files.at('layer'));
    const words = ['export', 'overlay', base, files.at('layer'), '--history', '/dev/shm'];
    const socket = ['--socket', files.at('socket')];
    for (let life = 1; life <= 3; life += 1) {
      const server = execa(UBLK, [...words, ...socket], { reject: false });
      const [line] = (await once(server.stdout, 'data')) as [Buffer];
      const commands = [`write -P ${life} ${life}M 1M`, 'flush'];
      if (life > 1) commands.unshift(`read -P ${life - 1} ${life - 1}M 1M`);
      const qemu = commands.flatMap((command) => ['-c', command]);
      const io = ['-f', 'raw', ...qemu, line.toString().trim()];
      const { all } = await execa('qemu-io', io, { all: true });
      expect(all).not.toMatch(/failed|error/i);
      server.kill('SIGKILL');
      await server;
    }
  });

  test('without io_uring says so, and makes nothing', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 1 << 20);
    const without = await kernelWithout('io_uring', files.at('refuse'));
    const words = ['export', 'file', image, '--socket', files.at('socket'), '--json'];
    const refused = await without(UBLK, ...words);
    expect(refused.stderr).toContain('ERR_UBLK_NO_IO_URING');
    expect(refused.exitCode).toBe(1);
    expect(existsSync(files.at('socket'))).toBe(false);
  });

  test.each([
    ['to clients', 'cannot export with TLS', ['null', '--size', '1MiB', '--tls', '/']],
    [
      'to a server',
      'cannot connect to nbds://127.0.0.1:1/',
      ['nbd', 'nbds://127.0.0.1:1/', '--tls-certificates', '/'],
    ],
  ])('with TLS %s, on a kernel without TLS, names the module', async (_whom, tried, target) => {
    await using files = await folder();
    const without = await kernelWithout('tls', files.at('refuse'));
    const refused = await without(UBLK, 'export', ...target, '--port', '0', '--json');
    expect(refused.stderr).toContain('ERR_UBLK_UNSUPPORTED');
    expect(refused.stderr).toContain(
      `${tried}: the kernel cannot carry TLS connections (setsockopt: No such file or directory`,
    );
    expect(refused.stderr).toContain('modprobe tls');
    expect(refused.exitCode).toBe(1);
  });

  test('refuses an address of another machine', async () => {
    const run = (...words: string[]) => execa(UBLK, ['export', ...words], { reject: false });
    const elsewhere = await run('null', '--size', '1MiB', '--host', '192.0.2.1', '--port', '0');
    expect(elsewhere.stderr).toContain('cannot listen on 192.0.2.1, port 0');
    expect(elsewhere.exitCode).toBe(2);
  });
});
