import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test, vi } from 'vitest';

import { addNull } from '../../../src/cli/commands/add.ts';
import { serve } from '../../../src/cli/commands/serve.ts';
import { native, type NativeDevice, type NativeEnd } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

/** Lets the addon make devices without a kernel, with recovery; answers the devices that were made. */
function withoutKernel(): ReturnType<typeof fakeDevice>[] {
  const made: ReturnType<typeof fakeDevice>[] = [];
  const createDevice = async (_: unknown, onEnd: (end: NativeEnd) => void) => {
    const device = fakeDevice(onEnd);
    const info = device.info();
    device.info = (): ReturnType<NativeDevice['info']> => ({ ...info, recovery: 'reissue' });
    made.push(device);
    return { value: device };
  };
  const listDevices = async () => ({ value: [] });
  vi.mocked(native).mockReturnValue({ createDevice, listDevices } as never);
  return made;
}

function configFile(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-serving-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'ublk.json');
  const data = { target: { kind: 'null', size: '1MiB' }, recovery: 'reissue' };
  writeFileSync(path, JSON.stringify({ devices: { data } }));
  return path;
}

const flags = { pidFile: '/nowhere/pid' };

test.each([
  [
    'add',
    () => addNull({ ...flags, size: '1MiB', recovery: 'reissue', pin: true, referenceTags: true }),
  ],
  ['serve', () => serve(configFile(), flags)],
])('ublk %s takes no device from its users when the pid file cannot be written', async (_, run) => {
  vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  onTestFinished(() => void vi.restoreAllMocks());
  const made = withoutKernel();
  await expect(run()).rejects.toThrow("cannot write the pid file '/nowhere/pid'");
  expect(made).toHaveLength(1);
  expect(made[0]!.release).toHaveBeenCalledOnce();
  expect(made[0]!.close).not.toHaveBeenCalled();
});
