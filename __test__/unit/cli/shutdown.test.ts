import { beforeEach, expect, onTestFinished, test, vi } from 'vitest';

import { shutDown } from '../../../src/cli/shutdown.ts';
import { createDevice } from '../../../src/create.ts';
import { native, type NativeEnd } from '../../../src/native.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const stopDevice = vi.fn<(id: number) => Promise<unknown>>();
const deviceUsers = vi.fn<(id: number) => Promise<unknown>>();
let end!: (end: NativeEnd) => void;

beforeEach(() => {
  stopDevice.mockReset();
  deviceUsers.mockReset();
  vi.mocked(native).mockReturnValue({
    stopDevice,
    deviceUsers,
    createDevice: async (_: unknown, onEnd: typeof end) => {
      end = onEnd;
      return { value: fakeDevice(onEnd) };
    },
  } as never);
});

test('a device that another program has taken down is not stopped again, whoever has its number', async () => {
  const say = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  onTestFinished(() => say.mockRestore());
  const used = { found: [{ kind: 'process', name: 'dd', pid: 5 }], complete: true, text: 'dd' };
  stopDevice.mockResolvedValue({ failure: { code: 'ERR_UBLK_BUSY', message: 'in use: dd' } });
  deviceUsers.mockImplementation(async () => {
    // Another program deletes the device by force, and nobody uses the next one of this number.
    end({ reason: 'stopped' });
    deviceUsers.mockResolvedValue({ value: { found: [], complete: true, text: 'nobody' } });
    return { value: used };
  });
  const device = await createDevice({ target: { kind: 'null', size: '1MiB' } });
  const never = new AbortController().signal;
  await shutDown([device], { first: never, second: never, restart: never });
  expect(stopDevice).toHaveBeenCalledTimes(1);
});
