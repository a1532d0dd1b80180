import { readFile, writeFile } from 'node:fs/promises';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { exportNbd, targets, type NbdExport, type RbdTargetOptions } from '../../src/index.ts';
import { clusterOfTests, noCeph } from '../ceph.ts';
import { servesOn } from '../progress.ts';
import { startVerify } from './fio.ts';
import { folder, obstacle } from './machine.ts';

const MIB = 1 << 20;
const BUILT = new URL('../../dist/index.js', import.meta.url).href;
const why = noCeph ?? obstacle;

/** Runs commands of qemu-io on an export; returns the output, also of commands that failed. */
async function qemuIo({ uri }: NbdExport, ...commands: string[]): Promise<string> {
  const words = commands.flatMap((command) => ['-c', command]);
  const done = await execa('qemu-io', ['-f', 'raw', ...words, uri], { all: true, reject: false });
  return done.all;
}

describe.skipIf(why)(`an RBD target${why === undefined ? '' : ` [${why}]`}`, () => {
  const ceph = clusterOfTests();

  const serve = async (image: string, socket: string, more: RbdTargetOptions = {}) =>
    await exportNbd(targets.rbd(image, { ...ceph.options, ...more }), { socket });

  test('stores data in the image, and frees the image in the end', async () => {
    await using files = await folder();
    const image = await ceph.image('64M');
    {
      await using exported = await serve(image, files.at('socket'));
      expect(exported.size).toBe(64 * MIB);
      await startVerify(exported, '--rw=randwrite', '--fsync=64', '--offset=32M');
      await qemuIo(exported, 'write -P 1 0 8M', 'write -f -P 2 1M 1M', 'flush', 'discard 4M 4M');
      await qemuIo(exported, 'write -z 2M 1M', 'write -z -u 3M 64k');
      expect(await ceph.rbd('status', image)).toContain('watcher=');
      expect(exported.stats().total.errors).toBe(0);
    }
    expect(await ceph.rbd('status', image)).not.toContain('watcher=');
    await ceph.rbd('export', image, files.at('copy'));
    const copy = await readFile(files.at('copy'));
    const is = (value: number, from: number, to: number) =>
      copy.subarray(from * MIB, to * MIB).every((byte) => byte === value);
    const [zeros, unmapped, discarded] = [is(0, 2, 3), is(0, 3, 3.0625), is(0, 4, 8)];
    expect({ first: is(1, 0, 1), second: is(2, 1, 2), zeros, unmapped, discarded }).toEqual({
      first: true,
      second: true,
      zeros: true,
      unmapped: true,
      discarded: true,
    });
    expect(is(1, 3.0625, 4)).toBe(true);
  });

  test('goes on when the OSD is killed and started under a load', async () => {
    await using files = await folder();
    const image = await ceph.image('64M');
    await using exported = await serve(image, files.at('socket'));
    const load = startVerify(exported, '--rw=randrw', '--time_based', '--runtime=3600');
    for (let cycle = 0; cycle < 2; cycle += 1) {
      await servesOn(exported);
      await ceph.cluster.killOsd();
      await ceph.cluster.startOsd();
    }
    await servesOn(exported);
    load.kill('SIGINT');
    expect(await load.catch((error: unknown) => error)).toMatchObject({ stderr: '' });
    expect(exported.stats().total.errors).toBe(0);
  });

  test('serves a snapshot, which keeps its contents', async () => {
    await using files = await folder();
    const image = await ceph.image('8M');
    await writeFile(files.at('old'), Buffer.alloc(8 * MIB, 7));
    await ceph.rbd('rm', image);
    await ceph.rbd('import', files.at('old'), image);
    await ceph.rbd('snap', 'create', `${image}@monday`);
    await using written = await serve(image, files.at('new'));
    await qemuIo(written, 'write -P 9 0 8M');
    await using exported = await serve(image, files.at('socket'), { snapshot: 'monday' });
    expect(exported.readOnly).toBe(true);
    await execa('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', files.at('old'), exported.uri]);
    expect(await qemuIo(written, 'read -P 9 0 8M')).not.toContain('failed');
  });

  test('keeps the exclusive lock: a second server is refused', async () => {
    await using files = await folder();
    const image = await ceph.image('8M');
    {
      await using _first = await serve(image, files.at('first'));
      await expect(serve(image, files.at('second'))).rejects.toMatchObject({
        code: 'ERR_UBLK_BUSY',
        message: expect.stringContaining('another client holds the exclusive lock'),
      });
      await using reader = await serve(image, files.at('reader'), { readOnly: true });
      expect(reader.readOnly).toBe(true);
    }
    await using again = await serve(image, files.at('again'));
    expect(await qemuIo(again, 'write 0 4k')).not.toContain('failed');
  });

  test('fails requests once the cluster has blocklisted the client, and ends', async () => {
    await using files = await folder();
    const image = await ceph.image('8M');
    await using exported = await serve(image, files.at('socket'));
    expect(await qemuIo(exported, 'write 0 4k')).not.toContain('failed');
    const status = await ceph.rbd('status', image);
    const address = /watcher=(\S+)/.exec(status)?.[1] ?? '';
    await ceph.cluster.run('ceph', 'osd', 'blocklist', 'add', address);
    const after = await qemuIo(exported, 'write 0 4k', 'read 0 4k', 'flush');
    expect(after).toMatch(/write failed/);
    expect(after).toMatch(/read failed/);
  });

  test('fails requests when OSDs stay away for longer than requestTimeoutMs', async () => {
    await using files = await folder();
    const image = await ceph.image('8M');
    await using exported = await serve(image, files.at('socket'), { requestTimeoutMs: 1000 });
    expect(await qemuIo(exported, 'write 0 4k')).not.toContain('failed');
    await ceph.cluster.killOsd();
    try {
      expect(await qemuIo(exported, 'read 0 4k')).toContain('read failed');
    } finally {
      await ceph.cluster.startOsd();
    }
    await expect
      .poll(async () => await qemuIo(exported, 'read 0 4k'), { timeout: 30_000 })
      .not.toContain('failed');
  });

  test('fails requests beyond the end of an image that has become smaller', async () => {
    await using files = await folder();
    const image = await ceph.image('8M');
    await using exported = await serve(image, files.at('socket'), { lock: false });
    await ceph.rbd('resize', image, '--size', '4M', '--allow-shrink');
    await expect.poll(async () => await qemuIo(exported, 'read 6M 4k')).toContain('read failed');
    expect(await qemuIo(exported, 'write 6M 4k')).toContain('write failed');
    // Across the new end.
    expect(await qemuIo(exported, `read ${4 * MIB - 4096} 8k`)).toContain('read failed');
    expect(await qemuIo(exported, 'read 1M 4k')).not.toContain('failed');
  });

  test.each([
    ['process.exit(3)', 3, false],
    ["throw new Error('on purpose')", 1, false],
    ["process.kill(process.pid, 'SIGTERM'); await new Promise(() => {})", 'SIGTERM', true],
  ])('a program that ends by %s with an open image ends so', async (how, end, watches) => {
    await using files = await folder();
    const image = await ceph.image('8M');
    const options = JSON.stringify(ceph.options);
    const program = `
      import { exportNbd, targets } from ${JSON.stringify(BUILT)};
      const target = targets.rbd('${image}', ${options});
      await exportNbd(target, { socket: '${files.at('socket')}' });
      ${how};
    `;
    const run = execa('node', ['--input-type=module', '-e', program], { reject: false });
    const { exitCode, signal, stderr } = await run;
    expect({ end: exitCode ?? signal, stderr }).toMatchObject({ end });
    expect((await ceph.rbd('status', image)).includes('watcher=')).toBe(watches);
  });

  test('names what is wrong, and leaves nothing', async () => {
    await using files = await folder();
    const image = await ceph.image('8M');
    await ceph.cluster.run('ceph', 'auth', 'add', 'client.nobody', 'mon', 'allow r');
    await ceph.cluster.run('ceph', 'auth', 'export', 'client.nobody', '-o', files.at('nobody'));
    const wrongKey = '[client.admin]\n\tkey = AQBSdFhcQ0OxCBAAvQjQLtKZbhXrTFDsFVl1GA==\n';
    await writeFile(files.at('key'), wrongKey);
    await writeFile(files.at('conf'), '[global]\nmon host = v2:127.0.0.1:1\n');
    // librados complains on the C++ library's stream cerr.
    await writeFile(files.at('address'), '[global]\nmon host = 300.1.2.3\n');
    const cases: [string, RbdTargetOptions, string, RegExp][] = [
      ['other', {}, 'NO_BACKEND', /rbd has no image 'other'/],
      [image, { pool: 'other' }, 'NO_BACKEND', /the cluster has no pool 'other'/],
      [image, { snapshot: 'other' }, 'NO_BACKEND', /the image has no snapshot 'other'/],
      [image, { namespace: 'other' }, 'NO_BACKEND', /rbd\/other has no image/],
      [image, { conf: files.at('none') }, 'NO_BACKEND', /none cannot be read: No such file/],
      [
        image,
        { conf: files.at('address'), keyring: ceph.cluster.keyring },
        'NO_BACKEND',
        /or no monitor is known/,
      ],
      [image, { keyring: files.at('none') }, 'NO_BACKEND', /the keyring .*none cannot be read/],
      [image, { keyring: files.at('key') }, 'PERMISSION', /the cluster refuses client.admin/],
      [
        image,
        { user: 'nobody', keyring: files.at('nobody') },
        'PERMISSION',
        /client.nobody may not open the image/,
      ],
      [
        image,
        { conf: files.at('conf'), keyring: ceph.cluster.keyring, connectTimeoutMs: 1500 },
        'TIMEOUT',
        /the monitors of the cluster do not answer/,
      ],
    ];
    for (const [name, options, code, message] of cases) {
      await expect(serve(name, files.at('socket'), options)).rejects.toMatchObject({
        code: `ERR_UBLK_${code}`,
        message: expect.stringMatching(message),
      });
    }
    expect(await ceph.rbd('status', image)).not.toContain('watcher=');
  });
});
