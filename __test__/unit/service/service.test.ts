import { inspect } from 'node:util';

import { beforeEach, expect, onTestFinished, test, vi } from 'vitest';

import { native, type NativeEnd } from '../../../src/native.ts';
// Loaded before the tests: Vitest loads modules with process.nextTick, which these tests replace.
import '../../../src/service/observe.ts';
import '../../../src/service/plan.ts';
import { Service, type ServiceEvents } from '../../../src/service/service.ts';
import { fakeDevice } from '../fake-device.ts';

vi.mock(import('../../../src/native.ts'), async (original) => ({
  ...(await original()),
  native: vi.fn<typeof native>(),
}));

type Create = (options: { id?: number }, end: (end: NativeEnd) => void) => Promise<unknown>;

const createDevice = vi.fn<Create>();
let ends: ((end: NativeEnd) => void)[] = [];

beforeEach(() => {
  ends = [];
  createDevice.mockReset();
  createDevice.mockImplementation(async (_, end) => {
    ends.push(end);
    return { value: fakeDevice(end) };
  });
  const listDevices = async () => ({ value: [] });
  vi.mocked(native).mockReturnValue({ listDevices, createDevice } as never);
});

const target = { kind: 'null', size: '1GiB' } as const;

/** What would end the program, were it not for the test. */
function uncaught(): () => unknown[] {
  const later = process.nextTick.bind(process);
  const nextTick = vi.spyOn(process, 'nextTick');
  const thrown: unknown[] = [];
  const hear: typeof process.nextTick = (call, ...args) => {
    if (!String(call).includes('thrown')) return later(call, ...args);
    try {
      call();
    } catch (error) {
      thrown.push(error);
    }
  };
  nextTick.mockImplementation(hear);
  onTestFinished(() => nextTick.mockRestore());
  return () => thrown;
}

test.each<keyof ServiceEvents>(['serve', 'reload', 'end', 'handOver'])(
  'a listener of %s that throws hinders neither the service nor other listeners of it',
  async (event) => {
    const thrown = uncaught();
    const service = new Service();
    const oops = new Error('on purpose');
    service.prependListener(event, () => {
      throw oops;
    });
    const results = await service.reload({ devices: { a: { target }, b: { target } } });
    expect(results.map(({ error }) => error)).toEqual([undefined, undefined]);
    expect([...service.devices.keys()]).toEqual(['a', 'b']);
    expect(service.ready).toBe(true);
    ends[0]!({ reason: 'stopped' });
    await vi.waitFor(() => expect([...service.devices.keys()]).toEqual(['b']));
    expect(() => service.handedTo(7)).not.toThrow();
    expect(thrown()).toContain(oops);
  },
);

test('a step that fails for a reason that nobody has thought of hinders no other', async () => {
  const oops = new TypeError('a defect');
  const service = new Service();
  createDevice.mockRejectedValueOnce(oops);
  const results = await service.reload({ devices: { a: { target }, b: { target } } });
  expect(results.map(({ error }) => error)).toEqual([
    expect.objectContaining({ code: 'ERR_UBLK_INTERNAL', cause: oops }),
    undefined,
  ]);
  expect([...service.devices.keys()]).toEqual(['b']);
  expect(service.results).toEqual(results);
});

test('says itself what it is, to people and as JSON', async () => {
  const service = new Service();
  await service.reload({ devices: { data: { target } } });
  const shown = { ready: true, devices: { data: { path: '/dev/ublkb7' } } };
  expect(JSON.parse(JSON.stringify(service))).toMatchObject(shown);
  expect(inspect(service)).toMatch(/^Service \{\s+ready: true,\s+devices: \{\s+data: Device \{/);
});
