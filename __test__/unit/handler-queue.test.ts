import { constants } from 'node:os';
import { setImmediate } from 'node:timers/promises';

import { beforeEach, describe, expect, test, vi } from 'vitest';

import type { UblkError } from '../../src/errors.ts';
import { checkHandler } from '../../src/handler/handler.ts';
import { IoError } from '../../src/handler/io-error.ts';
import * as layout from '../../src/handler/layout.ts';
import { HandlerQueue } from '../../src/handler/queue.ts';
import type { HandlerRequest } from '../../src/handler/request.ts';
import type { Handler } from '../../src/handler/types.ts';
import { targets } from '../../src/targets/index.ts';
import { FakeChannel, type Asked } from './fake-channel.ts';

const { EIO, ENOSPC } = constants.errno;
const backends = {
  hot: targets.null({ size: '1MiB' }),
  cold: targets.null({ size: '1MiB' }),
};

describe('A handler', () => {
  let channel!: FakeChannel;
  let warnings!: UblkError[];
  let queue!: HandlerQueue;

  beforeEach(() => {
    channel = new FakeChannel();
    warnings = [];
  });

  function serve(handler: Partial<Handler>): void {
    const checked = checkHandler({ size: '1MiB', read() {}, ...handler });
    const { methods } = checked;
    const warn = (warning: UblkError) => warnings.push(warning);
    const options = { queue: 0, depth: channel.depth, methods, backends: checked.backends, warn };
    queue = new HandlerQueue(channel, options);
    queue.serve();
  }

  function ask(...all: Asked[]): void {
    for (const one of all) channel.ask(one);
    queue.serve();
  }

  function stepped(...results: number[]): void {
    channel.stepped(0, ...results);
    queue.serve();
  }

  const done = { tag: 0, kind: layout.ANSWER_DONE, count: 0, generation: 1, errno: 0 };
  const failed = (errno: number) => ({ ...done, kind: layout.ANSWER_FAILED, errno });

  test('is given what a request says', () => {
    const seen: unknown[] = [];
    serve({
      write: ({ op, offset, length, fua, tag, queue, data }) => {
        seen.push({ op, offset, length, fua, tag, queue, bytes: data.length });
      },
    });
    ask({ op: 1, tag: 3, offset: 2 ** 40 + 512, length: 1024, flags: layout.FLAG_FUA });
    const request = { op: 'write', offset: 2 ** 40 + 512, length: 1024, tag: 3, queue: 0 };
    expect(seen).toEqual([{ ...request, fua: true, bytes: 1024 }]);
  });

  test('that answers at once is answered for in the same batch, and one wake-up', () => {
    serve({});
    channel.sleep();
    ask({ tag: 0 }, { tag: 1 }, { tag: 2 });
    expect(channel.answers()).toEqual([done, { ...done, tag: 1 }, { ...done, tag: 2 }]);
    expect(channel.wakes).toBe(1);
    expect(channel.peerSleeps).toBe(true);
  });

  test('that answers later is answered for then, with others of that turn', async () => {
    const gate = withResolvers<void>();
    serve({ read: () => gate.promise });
    ask({ tag: 0 }, { tag: 1 });
    channel.sleep();
    expect(channel.answers()).toEqual([]);
    gate.resolve();
    await setImmediate();
    expect(channel.answers()).toEqual([done, { ...done, tag: 1 }]);
    expect(channel.wakes).toBe(1);
  });

  test('sees the same memory for each request of a tag, as long as it is', () => {
    const views: Buffer[] = [];
    serve({ read: ({ data }) => void views.push(data) });
    ask({ length: 4096 }, { length: 4096, generation: 2 }, { length: 512, generation: 3 });
    expect(views[0]).toBe(views[1]);
    expect(views[2]!.length).toBe(512);
    expect(views[2]!.buffer).toBe(channel.buffers[0]);
  });

  test('fails a request with the errno of an IoError, quietly', async () => {
    serve({
      read: () => {
        throw new IoError('ENOSPC');
      },
    });
    ask({});
    expect(channel.answers()).toEqual([failed(ENOSPC)]);
    expect(warnings).toEqual([]);
  });

  test('that throws, or rejects, fails the request with EIO and is told of', async () => {
    const oops = new Error('oops');
    serve({
      read: () => {
        throw oops;
      },
      write: async () => {
        throw oops;
      },
    });
    ask({ offset: 512 }, { tag: 1, op: 1 });
    await setImmediate();
    expect(channel.answers()).toEqual([failed(EIO), { ...failed(EIO), tag: 1 }]);
    const about = { code: 'ERR_UBLK_HANDLER', cause: oops };
    expect(warnings).toMatchObject([
      { ...about, request: { op: 'read', offset: 512, length: 4096, queue: 0 } },
      { ...about, request: { op: 'write' } },
    ]);
  });

  test('of a thenable that settles twice answers once', async () => {
    // oxlint-disable-next-line unicorn/no-thenable -- that is what is tested
    const twice = { then: (settle: () => void) => [settle(), settle()] };
    serve({ read: () => twice as unknown as Promise<void> });
    ask({});
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
  });

  test.each([[5], ['text'], [{}], [[]], [[{ backend: 'nowhere', offset: 0 }]]])(
    'that answers %j fails the request',
    (answer) => {
      serve({ backends, read: () => answer as never });
      ask({});
      expect(channel.answers()).toEqual([failed(EIO)]);
      expect(warnings).toMatchObject([{ code: 'ERR_UBLK_HANDLER' }]);
    },
  );

  test('that answers after its request timed out is told of, and harms no other', async () => {
    const gate = withResolvers<void>();
    const seen: HandlerRequest[] = [];
    serve({
      read: (request) => {
        seen.push(request);
        return seen.length === 1 ? gate.promise : undefined;
      },
    });
    ask({});
    channel.buffers[0] = new ArrayBuffer(8192);
    ask({ generation: 2, epoch: 1 });
    expect(channel.answers()).toEqual([{ ...done, generation: 2 }]);
    expect(seen[1]).not.toBe(seen[0]);
    expect(seen[1]!.data.buffer).toBe(channel.buffers[0]);
    gate.resolve();
    await setImmediate();
    expect(channel.answers()).toEqual([]);
    expect(warnings).toMatchObject([{ code: 'ERR_UBLK_LATE_ANSWER' }]);
  });

  test('that transfers its memory away fails the request, and the memory is given up', () => {
    serve({ read: ({ data }) => void structuredClone(data, { transfer: [data.buffer] }) });
    ask({});
    expect(channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_SPOILT, errno: EIO }]);
    expect(channel.kept).toEqual([0]);
    expect(warnings).toMatchObject([{ code: 'ERR_UBLK_DATA_DETACHED' }]);
  });

  test('says where the bytes are, in pieces that follow each other', () => {
    channel.buffers.fill(null);
    expect(checkHandler({ size: 512, backends, map: pieces }).mapsOnly).toBe(true);
    serve({ backends, read: undefined as never, map: pieces });
    ask({ tag: 2, offset: 1024 });
    expect(channel.answers()).toEqual([{ ...done, tag: 2, kind: layout.ANSWER_PLAN, count: 2 }]);
    expect(channel.piece(2, 0)).toEqual({
      backend: 1,
      op: 0,
      at: 0,
      length: 512,
      offset: 2 ** 33 + 1024,
    });
    expect(channel.piece(2, 1)).toEqual({ backend: 0, op: 0, at: 512, length: 3584, offset: 0 });
  });

  test('runs steps, those of a turn together, and goes on when they have ended', async () => {
    serve({
      backends,
      write: async (request) => {
        await Promise.all([request.write('hot', 0), request.write('cold', 4096)]);
        await request.flush('cold');
      },
    });
    ask({ op: 1 });
    await setImmediate();
    expect(channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_STEPS, count: 2 }]);
    expect(channel.piece(0, 1)).toEqual({ backend: 1, op: 1, at: 0, length: 4096, offset: 4096 });
    ask({ op: layout.KIND_STEPPED });
    await setImmediate();
    expect(channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_STEPS, count: 1 }]);
    expect(channel.piece(0, 0)).toMatchObject({ backend: 1, op: 2 });
    ask({ op: layout.KIND_STEPPED });
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
  });

  test('hears what a step failed of, and passes it on unless it catches it', async () => {
    serve({ backends, read: (request) => request.read('hot', 0) });
    ask({});
    await setImmediate();
    channel.answers();
    stepped(ENOSPC);
    await setImmediate();
    expect(channel.answers()).toEqual([failed(ENOSPC)]);
    expect(warnings).toEqual([]);
  });

  test('hears of each of the steps that ran together what became of it', async () => {
    let results!: PromiseSettledResult<void>[];
    serve({
      backends,
      write: async (request) => {
        results = await Promise.allSettled([request.write('hot', 0), request.write('cold', 0)]);
      },
    });
    ask({ op: 1 });
    await setImmediate();
    channel.answers();
    stepped(0, ENOSPC);
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
    expect(results).toMatchObject([
      { status: 'fulfilled' },
      { reason: { code: 'ENOSPC', message: "backend 'cold' failed to write with ENOSPC" } },
    ]);
  });

  test('has a step done after all that another kept from beginning', async () => {
    let results!: PromiseSettledResult<void>[];
    serve({
      backends,
      write: async (request) => {
        results = await Promise.allSettled([request.write('hot', 0), request.write('cold', 512)]);
      },
    });
    ask({ op: 1 });
    await setImmediate();
    channel.answers();
    stepped(EIO, layout.NOT_BEGUN);
    await setImmediate();
    expect(channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_STEPS, count: 1 }]);
    expect(channel.piece(0, 0)).toMatchObject({ backend: 1, offset: 512 });
    stepped(0);
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
  });

  test('that throws while its steps run is answered for when they have ended', async () => {
    serve({
      backends,
      read(request) {
        void request.read('hot', 0);
        throw new IoError('ENOSPC');
      },
    });
    ask({});
    await setImmediate();
    expect(channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS }]);
    stepped(0);
    await setImmediate();
    expect(channel.answers()).toEqual([failed(ENOSPC)]);
  });

  test('whose step is none hears of that, and the others are done', async () => {
    const reasons: unknown[] = [];
    serve({
      backends,
      async discard(request) {
        const steps = [
          request.discard('nowhere', 0, 512),
          request.discard('hot', 0.5, 512),
          request.discard('hot', 0, 2 ** 32),
          request.discard('cold', 0, 512),
        ];
        for (const step of steps) await step.catch((error: Error) => reasons.push(error.message));
      },
    });
    ask({ op: 3 });
    await setImmediate();
    expect(channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS, count: 1 }]);
    stepped(0);
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
    expect(reasons).toEqual([
      "there is no backend 'nowhere'",
      'the offset of a step is 0.5; it must be a whole number of bytes',
      'the length of a step is 4294967296; it must be less than 4 GiB',
    ]);
  });

  test('that does not wait for its steps is answered for when they have ended', async () => {
    serve({ backends, read: (request) => void request.read('hot', 0) });
    ask({});
    await setImmediate();
    expect(channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS }]);
    ask({ op: layout.KIND_STEPPED });
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
  });

  test('asking for steps of a request that has ended is refused', async () => {
    let kept!: HandlerRequest;
    serve({ backends, read: (request) => void (kept = request as never) });
    ask({});
    await expect(kept.read('hot', 0)).rejects.toMatchObject({ code: 'ERR_UBLK_LATE_ANSWER' });
    expect(channel.answers()).toEqual([done]);
  });

  test('asking for steps of a request that it has answered leaves the next one alone', async () => {
    const kept: HandlerRequest[] = [];
    const gates = [withResolvers<void>(), withResolvers<void>()];
    serve({
      backends,
      read: (request) => gates[kept.push(request as never) - 1]!.promise,
    });
    ask({});
    gates[0]!.resolve();
    await setImmediate();
    expect(channel.answers()).toEqual([done]);
    ask({ generation: 2 });
    await expect(kept[0]!.read('hot', 0)).rejects.toMatchObject({ code: 'ERR_UBLK_LATE_ANSWER' });
    gates[1]!.resolve();
    await setImmediate();
    expect(channel.answers()).toEqual([{ ...done, generation: 2 }]);
  });

  test('hears of a step that its request has timed out', async () => {
    const gate = withResolvers<void>();
    let step!: Promise<void>;
    serve({
      backends,
      async read(request) {
        if (request.offset !== 0) return;
        await gate.promise;
        await (step = request.read('hot', 0));
      },
    });
    ask({});
    gate.resolve();
    await setImmediate();
    channel.answers();
    ask({ generation: 2, epoch: 1, offset: 512 });
    await expect(step).rejects.toMatchObject({ code: 'ERR_UBLK_LATE_ANSWER' });
    await setImmediate();
    expect(channel.answers()).toEqual([{ ...done, generation: 2 }]);
    expect(warnings).toMatchObject([{ code: 'ERR_UBLK_LATE_ANSWER' }]);
  });

  test('looking for data that is not in JavaScript is told what to do', () => {
    serve({ read: ({ data }) => void data });
    channel.buffers.fill(null);
    ask({});
    expect(channel.answers()).toEqual([failed(EIO)]);
    expect((warnings[0]!.cause as UblkError).hint).toContain("buffers: 'copy'");
  });

  test('leaves the event loop its turns, however many requests there are', async () => {
    let served = 0;
    serve({
      read: () => {
        served += 1;
        // The ring is never empty.
        channel.ask({ generation: served + 1 });
        channel.answers();
      },
    });
    const timer = vi.fn<() => void>();
    setTimeout(timer, 1);
    ask({});
    const first = served;
    expect(first).toBe(channel.depth * 4);
    await vi.waitFor(() => expect(timer).toHaveBeenCalled());
    expect(served).toBeGreaterThan(first);
  });
});

const pieces: NonNullable<Handler['map']> = ({ offset }) => [
  { backend: 'cold', offset: offset + 2 ** 33, length: 512 },
  { backend: 'hot', offset: 0 },
];

function withResolvers<T>() {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}
