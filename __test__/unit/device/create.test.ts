import { beforeEach, describe, expect, test, vi } from 'vitest';

import { createDevice } from '../../../src/create.ts';
import { toNativeOptions } from '../../../src/options.ts';
import { native, type NativeDevice, type NativeEnd } from '../../../src/native.ts';
import { targets } from '../../../src/targets/index.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

const target = targets.null({ size: '1GiB' });

describe('the options of createDevice', () => {
  test('are passed on without what was not given', () => {
    expect(toNativeOptions({ target, queues: undefined })).toEqual({
      target: { kind: 'null', size: 1 << 30 },
    });
  });

  test('are passed on in the units of the addon', () => {
    const options = { id: 3, queues: 2, depth: 64, maxIoBytes: '512k' } as const;
    const modes = { buffers: ['shared', 'copy'], rotateSlots: false } as const;
    const more = { splitRegister: true, pin: false, timeoutMs: 1000 };
    expect(toNativeOptions({ target, ...options, ...modes, ...more })).toEqual({
      target: { kind: 'null', size: 1 << 30 },
      ...options,
      ...modes,
      maxIoBytes: 524_288,
      ...more,
    });
  });

  test.each([
    [{ depth: 0 }, 'depth is 0; it must be a whole number from 1 to 4096'],
    [{ depth: 5000 }, 'depth is 5000; it must be a whole number from 1 to 4096'],
    [{ depth: 1.5 }, 'depth is 1.5; it must be a whole number from 1 to 4096'],
    [{ depth: '8' }, 'depth is "8"; it must be a whole number from 1 to 4096'],
    [{ queues: 0 }, 'queues is 0; it must be a whole number from 1 to 4096'],
    [{ id: -1 }, 'id is -1; it must be a whole number from 0 to 1048575'],
    [
      { maxIoBytes: 1000 },
      'maxIoBytes is 1000; it must be a multiple of 4 KiB from 4 KiB to 32 MiB',
    ],
    [
      { maxIoBytes: '64M' },
      'maxIoBytes is 64M; it must be a multiple of 4 KiB from 4 KiB to 32 MiB',
    ],
    [{ buffers: 'best' }, 'buffers is "best"'],
    [{ spinUsec: -1 }, 'spinUsec is -1; it must be a whole number from 0 to 1000000'],
    [{ pool: {} }, 'pool is no pool; it must come from createReactorPool()'],
    [{ queue: 1 }, 'queue must be an object, not 1'],
    [{ queue: { nomerge: 2 } }, "queue has no 'nomerge'"],
    [{ queue: { nomerges: 3 } }, 'queue.nomerges is 3; it must be a whole number from 0 to 2'],
    [{ queue: { iostats: 0 } }, 'queue.iostats is 0; it must be true or false'],
    [
      { queue: { scheduler: 'a b' } },
      "queue.scheduler must be a scheduler's name, such as 'none' or 'mq-deadline'",
    ],
    [{ buffers: ['auto', 'best'] }, 'buffers is "best"'],
    [{ buffers: {} }, 'buffers is an object; it must be a mode or an array'],
    [{ rotateSlots: 1 }, 'rotateSlots is 1; it must be true or false'],
    [{ splitRegister: 1 }, 'splitRegister is 1; it must be true or false'],
    [{ pin: null }, 'pin is null; it must be true or false'],
    [{ timeoutMs: 0 }, 'timeoutMs is 0; it must be a whole number from 1 to 600000'],
  ])('%o are refused', (options, message) => {
    expect(() => toNativeOptions({ target, ...options } as never)).toThrow(
      expect.objectContaining({ code: 'ERR_UBLK_INVALID_ARGUMENT', message }),
    );
  });

  test('that are misspelled are refused with a guess', () => {
    expect(() => toNativeOptions({ target, queueDepth: 4 } as never)).toThrow(
      expect.objectContaining({ message: "createDevice() has no 'queueDepth'" }),
    );
    expect(() => toNativeOptions({ target, dept: 4 } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'depth'?" }),
    );
    const zeroCopy = { target: targets.null({ size: 4096 }), buffers: 'zero-copy' } as never;
    expect(() => toNativeOptions(zeroCopy)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("zero copy is 'auto'") }),
    );
  });
});

describe('createDevice', () => {
  const create = vi.fn<ReturnType<typeof native>['createDevice']>();

  beforeEach(() => {
    create.mockReset();
    vi.mocked(native).mockReset();
    vi.mocked(native).mockReturnValue({ createDevice: create } as never);
  });

  test('does not load the addon when an argument is wrong', async () => {
    await expect(createDevice({ target, depth: 0 })).rejects.toThrow(/depth is 0/);
    expect(native).not.toHaveBeenCalled();
  });

  test('does not load the addon when it is aborted already', async () => {
    const reason = new Error('changed my mind');
    const signal = AbortSignal.abort(reason);
    await expect(createDevice({ target }, { signal })).rejects.toBe(reason);
    expect(native).not.toHaveBeenCalled();
  });

  test('rejects with the failure of the addon', async () => {
    create.mockResolvedValue({ failure: { code: 'ERR_UBLK_NO_DRIVER', message: 'no driver' } });
    await expect(createDevice({ target })).rejects.toMatchObject({ code: 'ERR_UBLK_NO_DRIVER' });
  });

  test('aborted meanwhile, removes the device before it rejects', async () => {
    const controller = new AbortController();
    let close = vi.fn<NativeDevice['close']>();
    create.mockImplementation(async (_options, onEnd: (end: NativeEnd) => void) => {
      controller.abort();
      const device = fakeDevice(onEnd);
      close = device.close;
      return { value: device };
    });
    const promise = createDevice({ target }, { signal: controller.signal });
    await expect(promise).rejects.toMatchObject({ name: 'AbortError' });
    expect(close).toHaveBeenCalledOnce();
  });
});
