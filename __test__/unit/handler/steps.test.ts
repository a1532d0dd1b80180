import { constants } from 'node:os';
import { setImmediate } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import { IoError } from '../../../src/handler/io-error.ts';
import * as layout from '../../../src/handler/layout.ts';
import type { HandlerRequest } from '../../../src/handler/request.ts';
import { backends, done, failed, handlerRig, withResolvers } from './rig.ts';

const { EIO, ENOSPC } = constants.errno;

describe('A handler that works in steps', () => {
  const rig = handlerRig();
  const { serve, ask, stepped } = rig;

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
    expect(rig.channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_STEPS, count: 2 }]);
    expect(rig.channel.piece(0, 1)).toEqual({
      backend: 1,
      op: 1,
      at: 0,
      length: 4096,
      offset: 4096,
    });
    ask({ op: layout.KIND_STEPPED });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_STEPS, count: 1 }]);
    expect(rig.channel.piece(0, 0)).toMatchObject({ backend: 1, op: 2 });
    ask({ op: layout.KIND_STEPPED });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
  });

  test('hears what a step failed of, and passes it on unless it catches it', async () => {
    serve({ backends, read: (request) => request.read('hot', 0) });
    ask({});
    await setImmediate();
    rig.channel.answers();
    stepped(ENOSPC);
    await setImmediate();
    expect(rig.channel.answers()).toEqual([failed(ENOSPC)]);
    expect(rig.warnings).toEqual([]);
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
    rig.channel.answers();
    stepped(0, ENOSPC);
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
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
    rig.channel.answers();
    stepped(EIO, layout.NOT_BEGUN);
    await setImmediate();
    expect(rig.channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_STEPS, count: 1 }]);
    expect(rig.channel.piece(0, 0)).toMatchObject({ backend: 1, offset: 512 });
    stepped(0);
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
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
    expect(rig.channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS }]);
    stepped(0);
    await setImmediate();
    expect(rig.channel.answers()).toEqual([failed(ENOSPC)]);
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
    expect(rig.channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS, count: 1 }]);
    stepped(0);
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
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
    expect(rig.channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS }]);
    ask({ op: layout.KIND_STEPPED });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
  });

  test.for<[string, [op: 'read' | 'write', length: number, at: number, errno: number][], boolean]>([
    ['a part', [['write', 512, 0, 0]], false],
    [
      'all but a gap',
      [
        ['write', 512, 0, 0],
        ['write', 3072, 1024, 0],
      ],
      false,
    ],
    [
      'the end and the beginning',
      [
        ['write', 3584, 512, 0],
        ['write', 512, 0, 0],
      ],
      true,
    ],
    ['all, in one place that failed', [['write', 4096, 0, EIO]], false],
    [
      'all, in one of two places',
      [
        ['write', 4096, 0, EIO],
        ['write', 4096, 0, 0],
      ],
      true,
    ],
    ['the wrong way', [['read', 4096, 0, 0]], false],
  ])('ends well only if they have moved all of the data: %s', async ([, steps, well]) => {
    serve({
      backends,
      write: async (request) => {
        for (const [op, length, at] of steps) {
          await request[op]('hot', 0, length, at).catch(() => {});
        }
      },
    });
    rig.channel.buffers.fill(null);
    ask({ op: 1 });
    for (const [, , , errno] of steps) {
      await setImmediate();
      expect(rig.channel.answers()).toMatchObject([{ kind: layout.ANSWER_STEPS }]);
      stepped(errno);
    }
    await setImmediate();
    expect(rig.channel.answers()).toEqual([well ? done : failed(EIO)]);
    expect(rig.warnings).toHaveLength(well ? 0 : 1);
  });

  test('asking for steps of a request that has ended is refused', async () => {
    let kept!: HandlerRequest;
    serve({ backends, read: (request) => void (kept = request as never as HandlerRequest).data });
    ask({});
    await expect(kept.read('hot', 0)).rejects.toMatchObject({ code: 'ERR_UBLK_LATE_ANSWER' });
    expect(rig.channel.answers()).toEqual([done]);
  });

  test('asking for steps of a request that it has answered leaves the next one alone', async () => {
    const kept: HandlerRequest[] = [];
    const gates = [withResolvers<void>(), withResolvers<void>()];
    serve({
      backends,
      read: (request) =>
        gates[kept.push(request as never) - 1]!.promise.then(() => void request.data),
    });
    ask({});
    gates[0]!.resolve();
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
    ask({ generation: 2 });
    await expect(kept[0]!.read('hot', 0)).rejects.toMatchObject({ code: 'ERR_UBLK_LATE_ANSWER' });
    gates[1]!.resolve();
    await setImmediate();
    expect(rig.channel.answers()).toEqual([{ ...done, generation: 2 }]);
  });

  test('has one view of its memory, though each request is an object of its own', async () => {
    const seen: { request: HandlerRequest; data: Buffer }[] = [];
    serve({
      backends,
      async read(request) {
        seen.push({ request: request as never, data: request.data });
      },
    });
    ask({});
    await setImmediate();
    ask({ generation: 2 });
    await setImmediate();
    expect(seen[1]!.request).not.toBe(seen[0]!.request);
    expect(seen[1]!.data).toBe(seen[0]!.data);
  });

  test('that transfers its memory away after its answer is told when it is needed', async () => {
    let memory!: ArrayBuffer;
    serve({
      backends,
      async read({ data }) {
        memory = data.buffer;
      },
    });
    ask({});
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
    structuredClone(memory, { transfer: [memory] });
    ask({ generation: 2 });
    await setImmediate();
    expect(rig.channel.answers()).toMatchObject([{ kind: layout.ANSWER_SPOILT, generation: 2 }]);
    expect(rig.channel.kept).toEqual([0]);
  });

  test('hears of a step that its request has timed out', async () => {
    const gate = withResolvers<void>();
    let step!: Promise<void>;
    serve({
      backends,
      async read(request) {
        if (request.offset !== 0) return void request.data;
        await gate.promise;
        await (step = request.read('hot', 0));
      },
    });
    ask({});
    gate.resolve();
    await setImmediate();
    rig.channel.answers();
    ask({ generation: 2, epoch: 1, offset: 512 });
    await expect(step).rejects.toMatchObject({ code: 'ERR_UBLK_LATE_ANSWER' });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([{ ...done, generation: 2 }]);
    expect(rig.warnings).toMatchObject([{ code: 'ERR_UBLK_LATE_ANSWER' }]);
  });
});
