import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setImmediate, setTimeout } from 'node:timers/promises';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import {
  type Completion,
  type CompletionsMessage,
  type EndMessage,
  type HandlerRequest,
  IoError,
  targets,
} from '../../../src/index.ts';
import { watchCompletions } from '../../../src/completions.ts';
import { simulate, type SimulatedDisk } from '../../../src/testing/index.ts';

let disk: SimulatedDisk;
const block = Buffer.alloc(4096, 1);

beforeEach(async () => {
  disk = await simulate(targets.null({ size: '1GiB' }));
});
afterEach(() => disk.close());

test('completions tell what each request was and what became of it', async () => {
  const batches = disk.device.completions();
  const before = Number(process.hrtime.bigint());
  await disk.write(8192, block);
  await disk.read(2 ** 29, 512);
  await disk.writeZeroes(0, 4096);
  const batch = (await batches.next()).value!;
  const after = Number(process.hrtime.bigint());
  expect(batch.dropped).toBe(0);
  expect(batch.completions).toMatchObject([
    { op: 'write', offset: 8192, length: 4096, result: 4096, queue: 0, fua: false },
    { op: 'read', offset: 2 ** 29, length: 512, result: 512, queue: 0 },
    { op: 'writeZeroes', offset: 0, length: 4096 },
  ]);
  for (const { time, latency, tag } of batch.completions) {
    expect(time - latency).toBeGreaterThan(before);
    expect(time).toBeLessThan(after);
    expect(tag).toBeLessThan(128);
  }
});

test('iteration waits for more, and ends with the device after what was left', async () => {
  const seen: Completion[] = [];
  const batches = disk.device.completions({ intervalMs: 1 });
  const watching = (async () => {
    for await (const { completions } of batches) seen.push(...completions);
  })();
  await disk.read(0, 512);
  await vi.waitUntil(() => seen.length === 1);
  await disk.read(512, 512);
  await disk.close();
  await watching;
  expect(seen.map(({ offset }) => offset)).toEqual([0, 512]);
});

test('iteration that waits for long ends when the device does', async () => {
  const batches = disk.device.completions({ intervalMs: 60_000 });
  const waiting = batches.next();
  await setImmediate();
  await disk.close();
  expect(await waiting).toEqual({ done: true, value: undefined });
});

test('watchers see the same, each at its own pace; what has no room is counted', async () => {
  const slow = disk.device.completions({ capacity: 2 });
  const roomy = disk.device.completions({ capacity: 16 });
  for (let index = 0; index < 5; index++) await disk.read(index * 512, 512);
  const offsets = (completions: readonly Completion[]) => completions.map(({ offset }) => offset);
  const [first, all] = [(await slow.next()).value!, (await roomy.next()).value!];
  expect(first.dropped).toBe(3);
  expect(offsets(first.completions)).toEqual([0, 512]);
  expect(all.dropped).toBe(0);
  expect(offsets(all.completions)).toEqual([0, 512, 1024, 1536, 2048]);
});

test('a signal ends the iteration, whether it waits or not', async () => {
  const stop = new AbortController();
  const batches = disk.device.completions({ signal: stop.signal, intervalMs: 60_000 });
  const waiting = batches.next();
  await setImmediate();
  stop.abort();
  await expect(waiting).rejects.toThrow('aborted');
  expect(() => disk.device.completions({ signal: stop.signal })).toThrow('aborted');
});

test('bad options are refused', () => {
  expect(() => disk.device.completions({ capacity: 0 })).toThrow('capacity is 0');
  expect(() => disk.device.completions({ intervalMs: 0.5 })).toThrow('intervalMs is 0.5');
  expect(() => disk.device.completions({ size: 1 } as never)).toThrow("has no 'size'");
});

test('a failed request says of what', async () => {
  await using failing = await simulate(targets.error({ size: '1MiB' }));
  const batches = failing.device.completions();
  await expect(failing.read(0, 512)).rejects.toThrow('EIO');
  expect((await batches.next()).value!.completions).toMatchObject([{ op: 'read', result: -5 }]);
});

test('what a handler answers is told like anything else', async () => {
  const handler = {
    size: 1 << 20,
    read: ({ data }: HandlerRequest) => void data.fill(1),
    async write({ offset, data: _data }: HandlerRequest) {
      await setTimeout(1);
      if (offset === 0) throw new IoError('ENOSPC');
    },
  };
  await using answered = await simulate(handler);
  const batches = answered.device.completions();
  await answered.read(4096, 8192);
  await answered.write(8192, block);
  await expect(answered.write(0, block)).rejects.toThrow('ENOSPC');
  expect((await batches.next()).value!.completions).toMatchObject([
    { op: 'read', offset: 4096, length: 8192, result: 8192 },
    { op: 'write', offset: 8192, length: 4096, result: 4096 },
    { op: 'write', offset: 0, length: 4096, result: -28 },
  ]);
});

test('diagnostics channels tell of devices and of completions', async () => {
  const created: unknown[] = [];
  const ended: unknown[] = [];
  const offsets: number[] = [];
  const onCreate = (message: unknown) => created.push(message);
  const onEnd = (message: unknown) => ended.push(message);
  const onCompletions = (message: unknown) => {
    const { device, completions } = message as CompletionsMessage;
    if (device === simulated.device) offsets.push(...completions.map(({ offset }) => offset));
  };
  subscribe('ublk:device.create', onCreate);
  subscribe('ublk:device.end', onEnd);
  subscribe('ublk:completions', onCompletions);
  const simulated = await simulate(targets.null({ size: '1MiB' }));
  const { device } = simulated;
  expect(created).toEqual([{ device }]);
  await simulated.read(1024, 512);
  await simulated.close();
  expect(ended).toEqual([{ device, reason: 'closed' } satisfies EndMessage]);
  await vi.waitUntil(() => offsets.length > 0);
  expect(offsets).toEqual([1024]);
  unsubscribe('ublk:device.create', onCreate);
  unsubscribe('ublk:device.end', onEnd);
  unsubscribe('ublk:completions', onCompletions);
  expect(channel('ublk:completions').hasSubscribers).toBe(false);
});

test('a subscriber that comes late is noticed, and one that goes too', async () => {
  const watches = vi.spyOn(disk.device, 'completions');
  const seen: CompletionsMessage[] = [];
  const onCompletions = (message: unknown) => seen.push(message as CompletionsMessage);
  subscribe('ublk:completions', onCompletions);
  await vi.waitUntil(() => watches.mock.calls.length > 0, { timeout: 10_000 });
  await disk.read(0, 512);
  await vi.waitUntil(() => seen.length > 0);
  expect(seen[0]).toMatchObject({ device: disk.device, completions: [{ op: 'read' }], dropped: 0 });
  unsubscribe('ublk:completions', onCompletions);
  const { signal } = watches.mock.calls[0]![0]!;
  await vi.waitUntil(() => signal!.aborted, { timeout: 10_000 });
  await disk.read(0, 512);
  await setTimeout(50);
  expect(seen).toHaveLength(1);
});

test('an iteration that has not begun ends its watch', async () => {
  const end = vi.fn<() => void>();
  const device = { watch: () => ({ take: () => ({ records: Buffer.alloc(0), dropped: 0 }), end }) };
  const watch = () => watchCompletions(device as never, new Promise(() => {}), {});
  expect(await watch().return!()).toEqual({ done: true, value: undefined });
  expect(end).toHaveBeenCalledOnce();
  await expect(watch().throw!(new Error('on purpose'))).rejects.toThrow('on purpose');
  expect(end).toHaveBeenCalledTimes(2);
});
