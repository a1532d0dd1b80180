import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test, vi, type TestContext } from 'vitest';

import { findProgram } from '../../scripts/debian.ts';
import { deleteDevice, getDeviceInfo } from '../../src/index.ts';
import { IMAGE, importImage, ofManifest, podman, recommended } from './containers.ts';
import { folderOfTests, sparseImage, temporaryFolder } from './image.ts';
import { endLoad, pause, startLoad } from './load.ts';
import { expectNoDevices, isTestMachine, need, withUblk } from './machine.ts';

const MIB = 1 << 20;
const CONFIG =
  '[devices.data]\ntarget = { kind = "file", path = "/srv/data.img" }\nrecovery = "reissue"\n';
/** Folders of the host that the examples hand to the container. */
const FOLDERS = ['/etc/ublk', '/srv', '/run/ublk', '/run/ublk-servers'];
const soon = { timeout: 120_000, interval: 500 };

/** The device is live, and its server is not the process `before`; the process that serves. */
async function servedAgain(before = 0): Promise<number> {
  return await vi.waitFor(async () => {
    const { state, serverPid } = await getDeviceInfo(0);
    expect(state).toBe('live');
    expect(serverPid).not.toBe(before);
    return serverPid!;
  }, soon);
}

withUblk('a container that serves', () => {
  const folder = folderOfTests();
  let imported: Promise<void> | undefined;

  /** Imports the image once. Only in a machine that is thrown away, with the image and the folders. */
  async function needImage(context: TestContext): Promise<void> {
    if (!isTestMachine) context.skip('makes folders in the root: npm run vm');
    if (!findProgram('podman')) context.skip('podman is missing: apt-get install podman');
    for (const name of FOLDERS) mkdirSync(name, { recursive: true });
    await (imported ??= importImage(folder));
  }

  afterEach(expectNoDevices);

  test('names what it lacks without the flags of the guide', async (context) => {
    await needImage(context);
    const run = ['run', '--rm', '--network=none', '--entrypoint', 'ublk'];
    const none = await podman(...run, IMAGE, 'doctor');
    expect(none.exitCode).toBe(1);
    expect(none.stdout).toContain('give this container the device (--device /dev/ublk-control)');
    const add = ['add', 'null', '--size', '1MiB'];
    const unprivileged = await podman(...run, '--volume', '/dev:/dev', IMAGE, ...add);
    expect(unprivileged).toMatchObject({ exitCode: 1 });
    expect(unprivileged.stderr).toContain('(ERR_UBLK_PERMISSION)');
  });

  test('comes back after a kill and a stop, and its clients see no error', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    await needImage(context);
    sparseImage(64 * MIB, '/srv', 'data.img');
    writeFileSync('/etc/ublk/ublk.toml', CONFIG);
    const run = ['run', '--network=none', ...recommended(), IMAGE];
    expect(await podman(...run)).toMatchObject({ exitCode: 0 });
    const first = await servedAgain();
    const load = startLoad('/dev/ublkb0');
    await pause(2000);
    process.kill(first, 'SIGKILL');
    const second = await servedAgain(first);
    await pause(2000);
    expect(await podman('stop', IMAGE)).toMatchObject({ exitCode: 0 });
    expect((await getDeviceInfo(0)).state).toBe('quiesced');
    expect(await podman('rm', IMAGE)).toMatchObject({ exitCode: 0 });
    expect(await podman(...run)).toMatchObject({ exitCode: 0 });
    await servedAgain(second);
    await pause(2000);
    await endLoad(load);
    expect(await podman('rm', '--force', IMAGE)).toMatchObject({ exitCode: 0 });
    await deleteDevice(0);
  });

  test('serves what the manifest of Kubernetes declares, from pod to pod', async (context) => {
    await need(context, 'USER_RECOVERY_REISSUE');
    await needImage(context);
    sparseImage(64 * MIB, '/srv', 'data.img');
    const { args, probe } = ofManifest(temporaryFolder());
    const pod = ['run', '--detach', '--network=none', ...args];
    expect(await podman(...pod, '--name=old', IMAGE)).toMatchObject({ exitCode: 0 });
    const server = await servedAgain();
    expect(await podman('exec', 'old', ...probe)).toMatchObject({ exitCode: 0 });
    const load = startLoad('/dev/ublkb0');
    await pause(2000);
    // A rolling update: the old pod ends, then the next pod starts.
    expect(await podman('stop', 'old')).toMatchObject({ exitCode: 0 });
    expect(await podman(...pod, '--name=new', IMAGE)).toMatchObject({ exitCode: 0 });
    await servedAgain(server);
    await pause(2000);
    await endLoad(load);
    expect(await podman('rm', '--force', 'old', 'new')).toMatchObject({ exitCode: 0 });
    await deleteDevice(0);
  });
});
