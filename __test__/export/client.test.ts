import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { exportNbd, targets } from '../../src/index.ts';
import { simulate } from '../../src/testing/index.ts';
import { folder, obstacle, patterned, sparse } from './machine.ts';

const MIB = 1 << 20;

// Both ends of the protocol are ours here; __test__/kernel/nbd.test.ts has the servers of others.
describe.skipIf(obstacle)('targets.nbd on an export', () => {
  test('serves a simulated disk, without root', async () => {
    await using files = await folder();
    const image = await sparse(files.at('image'), 4 * MIB);
    await using exported = await exportNbd(targets.file(image), { socket: files.at('socket') });
    await using disk = await simulate(targets.nbd(exported.uri));
    const data = randomBytes(300 * 1024);
    await disk.write(8192, data, { fua: true });
    await disk.write(2 * MIB, data);
    await disk.writeZeroes(2 * MIB, 4096);
    await disk.discard(3 * MIB, 65_536);
    await disk.flush();
    const expected = Buffer.alloc(4 * MIB);
    data.copy(expected, 8192);
    data.copy(expected, 2 * MIB);
    expected.fill(0, 2 * MIB, 2 * MIB + 4096);
    expect((await disk.read(0, 4 * MIB)).equals(expected)).toBe(true);
    expect((await readFile(image)).equals(expected)).toBe(true);
  });

  test('is exported again, through a second server', async () => {
    await using files = await folder();
    const image = await patterned(files.at('image'), 256);
    await using one = await exportNbd(targets.file(image), { socket: files.at('one') });
    await using two = await exportNbd(targets.nbd(one.uri), { socket: files.at('two') });
    await execa('nbdcopy', [two.uri, files.at('copy')]);
    await execa('cmp', [image, files.at('copy')]);
    const load = ['--name=load', '--ioengine=nbd', `--uri=${two.uri}`, '--rw=randrw'];
    const sizes = ['--bsrange=512-128k', '--size=1M', '--io_size=8M', '--iodepth=8'];
    const verify = ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0'];
    const { exitCode } = await execa('fio', [...load, ...sizes, ...verify]);
    expect(exitCode).toBe(0);
  });
});
