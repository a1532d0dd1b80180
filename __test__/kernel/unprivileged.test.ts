import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';

import { features, getDeviceInfo } from '../../src/index.ts';
import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { ublk } from './server.ts';

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
/** The checkout once more: users may not enter the folder of root, where the checkout may lie. */
const FOR_USERS = '/run/ublk-checkout';
const CLI = `${FOR_USERS}/dist/cli/main.js`;
const RULES = '/etc/udev/rules.d/97-ublk.rules';
const USER = 1234;

/** A command of a user who is nobody in particular. */
function asUser(...args: string[]) {
  const drop = [`--reuid=${USER}`, `--regid=${USER}`, '--clear-groups'];
  return execa('setpriv', [...drop, 'node', CLI, ...args], { reject: false, buffer: true });
}

withUblk('a user who is not root', () => {
  describe.runIf(isTestMachine)('with the udev rules of this package', () => {
    beforeAll(async () => {
      const { exitCode, stdout, stderr } = await ublk('udev-rules');
      // Below a folder that others can write to, such as /tmp, the package prints no rules.
      if (exitCode !== 0) throw new Error(`move this checkout: ${stderr}`);
      writeFileSync(RULES, `${stdout}\n`);
      await execa('udevadm', ['control', '--reload']);
      await execa('udevadm', ['trigger', '--settle', '--name-match=ublk-control']);
      mkdirSync(FOR_USERS, { recursive: true });
      await execa('mount', ['--bind', CHECKOUT, FOR_USERS]);
    });
    afterAll(async () => {
      writeFileSync(RULES, '');
      await execa('umount', [FOR_USERS]);
    });
    afterEach(expectNoDevices);

    test('serves a device of their own, and stops it', async (context) => {
      const all = await features();
      if (!all.some((one) => one.name === 'UNPRIVILEGED_DEV' && one.supported)) {
        context.skip('this kernel lacks UNPRIVILEGED_DEV (Linux 6.3)');
      }
      const server = asUser('add', 'null', '--size', '1MiB', '--unprivileged', '--json');
      const lines = createInterface({ input: server.stdout });
      const { value: line } = await lines[Symbol.asyncIterator]().next();
      if (line === undefined) throw new Error((await server).stderr);
      expect(JSON.parse(line)).toMatchObject({ path: '/dev/ublkb0', buffers: { mode: 'copy' } });
      const info = await getDeviceInfo(0);
      expect(info).toMatchObject({ ownerUid: USER, ownerGid: USER, state: 'live' });
      await vi.waitFor(() => expect(statSync('/dev/ublkb0').uid).toBe(USER), { timeout: 60_000 });
      const listed = await asUser('list', '--json');
      expect(JSON.parse(listed.stdout)).toMatchObject([info]);
      const stopped = await asUser('stop', '0', '--json');
      expect(stopped.stderr).toBe('');
      expect(JSON.parse(stopped.stdout)).toMatchObject({ id: 0, stopped: true });
      expect((await server).exitCode).toBe(0);
    });

    test('is told what excludes what', async () => {
      const { exitCode, stderr } = await asUser('add', 'null', '--size', '1MiB');
      expect(exitCode).toBe(1);
      expect(stderr).toContain('ask for an unprivileged device');
      const root = await ublk('add', 'null', '--size', '1MiB', '--unprivileged');
      expect(root.exitCode).toBe(2);
      expect(root.stderr).toContain('for users who are not root');
    });
  });
});
