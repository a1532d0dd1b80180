import { beforeEach, expect, onTestFinished, test, vi } from 'vitest';

import { closeOnSignals } from '../../../src/index.ts';
import { native } from '../../../src/native.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

/** Nobody else listens to it, or sends it. */
const SIGNAL = 'SIGUSR2';
const partAll = vi.fn<() => Promise<unknown>>();
const kill = vi.spyOn(process, 'kill');

beforeEach(() => {
  partAll.mockReset().mockResolvedValue({ value: undefined });
  kill.mockReset().mockReturnValue(true);
  vi.mocked(native).mockReturnValue({ partAll } as never);
});

function listen(): void {
  const listening = closeOnSignals({ signals: [SIGNAL] });
  onTestFinished(() => listening[Symbol.dispose]());
}

test('a signal closes all devices, then ends the program as if nobody had listened', async () => {
  listen();
  process.emit(SIGNAL, SIGNAL);
  expect(partAll).toHaveBeenCalledOnce();
  expect(kill).not.toHaveBeenCalled();
  await vi.waitFor(() => expect(kill.mock.calls).toEqual([[process.pid, SIGNAL]]));
  expect(process.listenerCount(SIGNAL)).toBe(0);
});

test('a second signal does not wait', () => {
  partAll.mockReturnValue(new Promise(() => {}));
  listen();
  process.emit(SIGNAL, SIGNAL);
  expect(kill).not.toHaveBeenCalled();
  process.emit(SIGNAL, SIGNAL);
  expect(kill).toHaveBeenCalledOnce();
  expect(partAll).toHaveBeenCalledOnce();
});

test('a device that does not end keeps the program, until the next signal', async () => {
  partAll.mockResolvedValueOnce({ failure: { code: 'ERR_UBLK_BUSY', message: 'in use' } });
  const warned = vi.spyOn(process, 'emitWarning').mockReturnValue();
  listen();
  process.emit(SIGNAL, SIGNAL);
  await vi.waitFor(() => expect(warned).toHaveBeenCalledOnce());
  expect(kill).not.toHaveBeenCalled();
  process.emit(SIGNAL, SIGNAL);
  await vi.waitFor(() => expect(kill).toHaveBeenCalledOnce());
  warned.mockRestore();
});

test('a listener of the program decides about its end', async () => {
  const own = vi.fn<() => void>();
  process.on(SIGNAL, own);
  onTestFinished(() => void process.off(SIGNAL, own));
  listen();
  process.emit(SIGNAL, SIGNAL);
  await vi.waitFor(() => expect(process.listenerCount(SIGNAL)).toBe(1));
  expect(own).toHaveBeenCalledOnce();
  expect(kill).not.toHaveBeenCalled();
});

test.each([
  [{ signals: ['SIGNAL'] }, 'signals is SIGNAL; it must be an array of names'],
  [{ signals: 'SIGTERM' }, 'signals is SIGTERM; it must be an array of names'],
  [{ signal: 'SIGTERM' }, "closeOnSignals() has no 'signal'"],
])('%o is refused', (options, message) => {
  expect(() => closeOnSignals(options as never)).toThrow(message);
  expect(process.listenerCount(SIGNAL)).toBe(0);
});
