import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterEach, expect, test } from 'vitest';

import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';

const PACKAGE = fileURLToPath(new URL('../../dist/index.js', import.meta.url));

/** Runs a program that has the package in mounts of its own, whose `/dev` is no devtmpfs. */
function runWithoutDevtmpfs(program: string, before = 'true') {
  const code = `
    import { existsSync, readdirSync } from 'node:fs';
    import { open } from 'node:fs/promises';
    import { createDevice, targets } from ${JSON.stringify(PACKAGE)};
    const nodes = () => readdirSync('/dev').filter((name) => /^ublk[bc]\\d/.test(name)).join();
    const target = targets.null({ size: '1MiB' });
    ${program}`;
  const script = `
    mount -t tmpfs none /mnt
    cp -a /dev/null /dev/zero /dev/random /dev/urandom /dev/ublk-control /mnt
    mount --move /mnt /dev
    ${before}
    exec "$@"`;
  const node = ['node', '--input-type=module', '--eval', code];
  const own = ['--mount', '--propagation', 'private'];
  return execa('unshare', [...own, 'sh', '-ec', script, 'sh', ...node], { reject: false });
}

withUblk('a /dev in which the kernel makes no nodes', () => {
  afterEach(expectNoDevices);

  test('has those of the server while there is the device', async (context) => {
    if (!isTestMachine) context.skip('mounts file systems: only on the test machine');
    const { stdout, stderr } = await runWithoutDevtmpfs(`
      const device = await createDevice({ target, id: 9 });
      const client = await open(device.path, 'r+');
      const { bytesRead } = await client.read(Buffer.alloc(4096), 0, 4096, 0);
      await client.close();
      console.log(nodes(), bytesRead);
      await device.close();
      console.log('left: ' + nodes());`);
    expect({ stdout, stderr }).toMatchObject({ stdout: 'ublkb9,ublkc9 4096\nleft: ' });
  });

  test('that takes none is an error at once', async (context) => {
    if (!isTestMachine) context.skip('mounts file systems: only on the test machine');
    const { stdout, stderr } = await runWithoutDevtmpfs(
      `await createDevice({ target, id: 9 }).catch(({ message }) => console.log(message));`,
      'mount -o remount,ro /dev',
    );
    expect(stdout + stderr).toContain('/dev/ublkc9');
    expect(stdout).toContain('Read-only file system');
  });
});
