import { constants } from 'node:os';
import { setImmediate } from 'node:timers/promises';

import { describe, expect, test, vi } from 'vitest';

import { toProcessWarning, type UblkError } from '../../../src/errors.ts';
import { toNative } from '../../../src/options.ts';
import { checkHandler, handler } from '../../../src/handler/handler.ts';
import { handlerModule } from '../../../src/handler/module.ts';
import { targets } from '../../../src/targets/index.ts';
import { IoError } from '../../../src/handler/io-error.ts';
import * as layout from '../../../src/handler/layout.ts';
import { fromMessage, toMessage } from '../../../src/handler/messages.ts';
import type { HandlerRequest } from '../../../src/handler/request.ts';
import type { Handler, Piece } from '../../../src/handler/types.ts';
import { backends, done, failed, handlerRig, withResolvers } from './rig.ts';

const { EIO, ENOSPC } = constants.errno;

describe('A handler', () => {
  const rig = handlerRig();
  const { serve, ask } = rig;

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
    rig.channel.sleep();
    ask({ tag: 0 }, { tag: 1 }, { tag: 2 });
    expect(rig.channel.answers()).toEqual([done, { ...done, tag: 1 }, { ...done, tag: 2 }]);
    expect(rig.channel.wakes).toBe(1);
    expect(rig.channel.peerSleeps).toBe(true);
  });

  test('that gives a single answer lets a reactor that sleeps sleep on', async () => {
    const { channel } = rig;
    serve({ write: async ({ data }) => void data });
    ask({ tag: 0 });
    expect([channel.answers(), channel.shows]).toEqual([[done], 0]);
    channel.sleep();
    ask({ tag: 1 });
    expect([channel.answers(), channel.shows]).toEqual([[{ ...done, tag: 1 }], 1]);
    ask({ tag: 2, op: 1 });
    await setImmediate();
    expect([channel.answers(), channel.shows]).toEqual([[{ ...done, tag: 2 }], 2]);
    expect(channel.wakes).toBe(0);
  });

  test('that answers later is answered for then, with others of that turn', async () => {
    const gate = withResolvers<void>();
    serve({ read: ({ data }) => gate.promise.then(() => void data) });
    ask({ tag: 0 }, { tag: 1 });
    rig.channel.sleep();
    expect(rig.channel.answers()).toEqual([]);
    gate.resolve();
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done, { ...done, tag: 1 }]);
    expect(rig.channel.wakes).toBe(1);
  });

  test('sees the same memory for each request of a tag, as long as it is', () => {
    const views: Buffer[] = [];
    serve({ read: ({ data }) => void views.push(data) });
    ask({ length: 4096 }, { length: 4096, generation: 2 }, { length: 512, generation: 3 });
    expect(views[0]).toBe(views[1]);
    expect(views[2]!.length).toBe(512);
    expect(views[2]!.buffer).toBe(rig.channel.buffers[0]);
  });

  test('fails a request with the errno of an IoError, quietly', async () => {
    serve({
      read: () => {
        throw new IoError('ENOSPC');
      },
    });
    ask({});
    expect(rig.channel.answers()).toEqual([failed(ENOSPC)]);
    expect(rig.warnings).toEqual([]);
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
    expect(rig.channel.answers()).toEqual([failed(EIO), { ...failed(EIO), tag: 1 }]);
    const about = { code: 'ERR_UBLK_HANDLER', cause: oops };
    expect(rig.warnings).toMatchObject([
      { ...about, request: { op: 'read', offset: 512, length: 4096, queue: 0 } },
      { ...about, request: { op: 'write' } },
    ]);
  });

  test('that throws is printed with its stack and its cause, from a worker too', () => {
    const cause = new TypeError('no such block', { cause: new RangeError('beyond the end') });
    serve({
      read: () => {
        throw cause;
      },
    });
    ask({});
    const sent = fromMessage(structuredClone(toMessage(rig.warnings[0])));
    for (const warning of [rig.warnings[0]!, sent]) {
      const { detail } = toProcessWarning(warning) as UblkError & { detail: string };
      expect(detail).toMatch(/TypeError: no such block\n +at /);
      expect(detail).toContain('handler/queue.test.ts');
      expect(detail).toMatch(/\[cause\]: RangeError: beyond the end\n +at /);
    }
  });

  test('that throws what is no error is told of with that', () => {
    serve({
      read: () => {
        throw { reason: 'none' };
      },
    });
    ask({});
    expect(rig.warnings[0]!.message).toBe("the handler failed to read: { reason: 'none' }");
  });

  test('of a thenable that settles twice answers once', async () => {
    // oxlint-disable-next-line unicorn/no-thenable -- that is what is tested
    const twice = { then: (settle: () => void) => [settle(), settle()] };
    serve({ read: ({ data: _data }) => twice as unknown as Promise<void> });
    ask({});
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
  });

  test.each([[5], ['text'], [{}], [[]], [[{ backend: 'nowhere', offset: 0 }]]])(
    'that answers %j fails the request',
    (answer) => {
      serve({ backends, read: () => answer as never });
      ask({});
      expect(rig.channel.answers()).toEqual([failed(EIO)]);
      expect(rig.warnings).toMatchObject([{ code: 'ERR_UBLK_HANDLER' }]);
    },
  );

  test.each([
    ['nothing', () => {}],
    ['null', () => null],
    ['a promise of nothing', async () => {}],
  ])('whose map answers %s fails the request', async (_, map) => {
    serve({ backends, read: undefined as never, map: map as never });
    ask({ op: 1 }, { op: 0, tag: 1 });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([failed(EIO), { ...failed(EIO), tag: 1 }]);
    expect(rig.warnings).toMatchObject([
      { code: 'ERR_UBLK_HANDLER', message: expect.stringContaining('map answered nothing') },
      { request: { op: 'read' }, hint: expect.stringContaining('return a piece') },
    ]);
  });

  test.each([
    ['at once', () => {}],
    ['later', async () => {}],
  ])('that has not had the data and answers nothing %s fails the request', async (_, method) => {
    serve({ backends, read: method, write: method, flush: method, discard: method });
    rig.channel.buffers.fill(null);
    ask({ op: 0 }, { op: 1, tag: 1 }, { op: 2, tag: 2 }, { op: 3, tag: 3 });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([
      failed(EIO),
      { ...failed(EIO), tag: 1 },
      { ...done, tag: 2 },
      { ...done, tag: 3 },
    ]);
    expect(rig.warnings.map(({ message }) => message)).toEqual([
      expect.stringContaining('read answered nothing'),
      expect.stringContaining('write answered nothing'),
    ]);
  });

  test.each([
    ['at once', () => {}],
    ['later', async () => {}],
  ])(
    'that has not looked at the data and answers nothing %s fails the request',
    async (_, method) => {
      serve({ read: method, write: method, discard: method });
      ask({ op: 0 }, { op: 1, tag: 1 }, { op: 3, tag: 2 });
      await setImmediate();
      expect(rig.channel.answers()).toEqual([
        failed(EIO),
        { ...failed(EIO), tag: 1 },
        { ...done, tag: 2 },
      ]);
      expect(rig.warnings.map(({ message }) => message)).toEqual([
        expect.stringContaining('read answered nothing'),
        expect.stringContaining('write answered nothing'),
      ]);
    },
  );

  test('that has looked at the data of the last request of the tag only fails this one', () => {
    let looks = true;
    serve({ read: (request) => void (looks && request.data.fill(1)) });
    ask({});
    looks = false;
    ask({ generation: 2 });
    expect(rig.channel.answers()).toEqual([done, { ...failed(EIO), generation: 2 }]);
  });

  test.each([[[null]], [[undefined]], [[{ backend: 'hot', offset: 0, length: 512 }, null]]])(
    'whose pieces are not all there fails the request: %j',
    (answer) => {
      serve({ backends, read: () => answer as never });
      ask({});
      expect(rig.channel.answers()).toEqual([failed(EIO)]);
      expect(rig.warnings[0]!.message).toMatch(/piece \d of the answer is/);
    },
  );

  test('that answers after its request timed out is told of, and harms no other', async () => {
    const gate = withResolvers<void>();
    const seen: HandlerRequest[] = [];
    serve({
      read: (request) => {
        seen.push(request);
        return seen.length === 1 ? gate.promise : void request.data;
      },
    });
    ask({});
    rig.channel.buffers[0] = new ArrayBuffer(8192);
    ask({ generation: 2, epoch: 1 });
    expect(rig.channel.answers()).toEqual([{ ...done, generation: 2 }]);
    expect(seen[1]).not.toBe(seen[0]);
    expect(seen[1]!.data.buffer).toBe(rig.channel.buffers[0]);
    gate.resolve();
    await setImmediate();
    expect(rig.channel.answers()).toEqual([]);
    expect(rig.warnings).toMatchObject([{ code: 'ERR_UBLK_LATE_ANSWER' }]);
  });

  test('that transfers its memory away fails the request, and the memory is given up', () => {
    serve({ read: ({ data }) => void structuredClone(data, { transfer: [data.buffer] }) });
    ask({});
    expect(rig.channel.answers()).toEqual([{ ...done, kind: layout.ANSWER_SPOILT, errno: EIO }]);
    expect(rig.channel.kept).toEqual([0]);
    expect(rig.warnings).toMatchObject([{ code: 'ERR_UBLK_DATA_DETACHED' }]);
  });

  test('says where the bytes are, in pieces that follow each other', () => {
    rig.channel.buffers.fill(null);
    expect(checkHandler({ size: 512, backends, map: pieces }).mapsOnly).toBe(true);
    serve({ backends, read: undefined as never, map: pieces });
    ask({ tag: 2, offset: 1024 });
    expect(rig.channel.answers()).toEqual([
      { ...done, tag: 2, kind: layout.ANSWER_PLAN, count: 2 },
    ]);
    expect(rig.channel.piece(2, 0)).toEqual({
      backend: 1,
      op: 0,
      at: 0,
      length: 512,
      offset: 2 ** 33 + 1024,
    });
    expect(rig.channel.piece(2, 1)).toEqual({
      backend: 0,
      op: 0,
      at: 512,
      length: 3584,
      offset: 0,
    });
  });

  test.for([
    ['a piece', (piece: Piece) => piece],
    ['a list of one', (piece: Piece) => [piece]],
    ['a piece with all of its fields', (piece: Piece) => ({ ...piece, at: 0, length: 4096 })],
  ] as const)('says in one word where all of a request is: %s', ([, form]) => {
    const place = 2 ** 41 + 1024;
    serve({
      backends,
      read: undefined as never,
      map: () => form({ backend: 'cold', offset: place }),
    });
    ask({ tag: 2 });
    const [{ errno: _, ...answer }] = rig.channel.answers() as [ReturnType<typeof failed>];
    expect(answer).toEqual({ tag: 2, kind: layout.ANSWER_REMAP, count: 1, generation: 1 });
    expect(rig.channel.place).toBe(place);
  });

  test.for([
    ['a part', { length: 512 }],
    ['a part at the end', { at: 3584 }],
  ] as const)('names a piece that is %s of a request as one', ([, part]) => {
    serve({
      backends,
      read: undefined as never,
      map: () => ({ backend: 'hot', offset: 512, ...part }),
    });
    ask({ tag: 1 });
    expect(rig.channel.answers()).toMatchObject([{ tag: 1, kind: layout.ANSWER_PLAN, count: 1 }]);
    const { at = 0, length = 4096 - at } = part as { at?: number; length?: number };
    expect(rig.channel.piece(1, 0)).toEqual({ backend: 0, op: 0, at, length, offset: 512 });
  });

  test.for([
    [{ backend: 'nothing', offset: 0 }, "no backend 'nothing'"],
    [{ offset: 0 }, "no backend 'undefined'"],
    [{ backend: 'hot', offset: -512 }, 'offset of a piece is -512'],
    [{ backend: 'hot', offset: 2 ** 53 }, 'offset of a piece'],
  ] as const)('whose piece cannot be one fails: %o', ([piece, why]) => {
    serve({ backends, read: undefined as never, map: () => piece as Piece });
    ask({});
    expect(rig.channel.answers()).toEqual([failed(EIO)]);
    expect(rig.warnings[0]!.message).toContain(why);
  });

  test.for([
    ['read', 0],
    ['write', 1],
    ['discard', 3],
  ] as const)('with more pieces than one answer has %ss them in turns', async ([, op]) => {
    const method = () => Array.from({ length: 5 }, (_, index) => sector(4 - index));
    serve({ backends, read: undefined as never, map: method, discard: method });
    ask({ op, length: 2560 });
    const seen: number[] = [];
    for (const count of [2, 2, 1]) {
      await setImmediate();
      const kind = layout.ANSWER_STEPS;
      expect(rig.channel.answers()).toMatchObject([{ kind, count }]);
      for (let index = 0; index < count; index += 1) seen.push(rig.channel.piece(0, index).at);
      rig.stepped();
    }
    await setImmediate();
    expect(rig.channel.answers()).toEqual([done]);
    expect(seen).toEqual([2048, 1536, 1024, 512, 0]);
    ask({ op, length: 2560, generation: 2 });
    await setImmediate();
    rig.channel.answers();
    rig.stepped(0, ENOSPC);
    await setImmediate();
    rig.channel.answers();
    rig.stepped();
    await setImmediate();
    rig.channel.answers();
    rig.stepped();
    await setImmediate();
    expect(rig.channel.answers()).toEqual([{ ...failed(ENOSPC), generation: 2 }]);
  });

  test.for([
    ['a gap', [sector(0), sector(1), sector(3), sector(4)], 'are not all of the 2560 bytes'],
    ['a piece twice', [0, 1, 2, 3, 4, 4].map(sector), 'have some of the 2560 bytes'],
    ['a hole', [sector(0), undefined, sector(1)], 'piece 1 of the answer is undefined'],
    ['nowhere', [sector(0), sector(1), { backend: 'nowhere', offset: 0 }], 'no backend'],
  ] as const)('whose many pieces do not fit fails: %s', async ([, answer, why]) => {
    serve({ backends, read: undefined as never, map: () => answer as never });
    ask({ length: 2560 });
    await setImmediate();
    expect(rig.channel.answers()).toEqual([failed(EIO)]);
    expect(rig.warnings[0]!.message).toContain(why);
  });

  test('looking for data that is not in JavaScript is told what to do', () => {
    serve({ read: ({ data }) => void data });
    rig.channel.buffers.fill(null);
    ask({});
    expect(rig.channel.answers()).toEqual([failed(EIO)]);
    expect((rig.warnings[0]!.cause as UblkError).hint).toContain("buffers: 'copy'");
  });

  test('leaves the event loop its turns, however many requests there are', async () => {
    let served = 0;
    serve({
      read: () => {
        served += 1;
        // The ring is never empty.
        rig.channel.ask({ generation: served + 1 });
        rig.channel.answers();
      },
    });
    const timer = vi.fn<() => void>();
    setTimeout(timer, 1);
    ask({});
    const first = served;
    expect(first).toBe(rig.channel.depth * 4);
    await vi.waitFor(() => expect(timer).toHaveBeenCalled());
    expect(served).toBeGreaterThan(first);
  });
});

/** A sector of a request where it is in `hot` too. */
function sector(number: number): Piece {
  return { backend: 'hot', offset: number * 512, at: number * 512, length: 512 };
}

const pieces: NonNullable<Handler['map']> = ({ offset }) => [
  { backend: 'cold', offset: offset + 2 ** 33, length: 512 },
  { backend: 'hot', offset: 0 },
];

describe('What a handler is made of', () => {
  const read = (): void => {};
  class Disk {
    readonly size = 4096;
    readonly blocks = new Map<number, Buffer>();
    read(): void {}
    load(): void {}
  }

  test('is known by name, and nothing else', () => {
    for (const [key, hint] of [
      ['logicalBlockSize', "did you mean 'blockSize'?"],
      ['blocksize', "did you mean 'blockSize'?"],
      ['trim', "did you mean 'discard'?"],
      ['wirte', "did you mean 'write'?"],
      ['cache', 'state belongs into a class'],
    ] as const) {
      const definition = { size: 4096, read, [key]: key === 'trim' ? read : 512 };
      const refused = {
        message: `the handler has no '${key}'`,
        hint: expect.stringContaining(hint),
      };
      expect(() => checkHandler(definition as never)).toThrow(expect.objectContaining(refused));
    }
  });

  test('is, of a class, also state and methods of its own', () => {
    expect(checkHandler(new Disk()).methods[0]).toBeTypeOf('function');
    class Trimmed extends Disk {
      trim(): void {}
    }
    expect(() => checkHandler(new Trimmed())).toThrow("the handler has no 'trim'");
    class Blocks extends Disk {
      readonly blocksize = 512;
    }
    expect(() => checkHandler(new Blocks())).toThrow("the handler has no 'blocksize'");
  });

  test('is refused by types too', () => {
    // @ts-expect-error no handler has this.
    expect(() => handler({ size: 4096, read, logicalBlockSize: 512 })).toThrow('logicalBlockSize');
    // @ts-expect-error no handler has this.
    expect(() => toNative({ size: 4096, read, logicalBlockSize: 512 })).toThrow('logicalBlockSize');
  });

  test('is needed, and lies below nothing', () => {
    const below = 'is a handler, which cannot lie below another target';
    const disk = targets.null({ size: 4096 });
    const there = { size: 4096, read };
    expect(() => toNative({ size: 4096 } as never)).toThrow('neither a kind nor methods');
    expect(() => toNative(targets.striped([disk, there as never]))).toThrow(`targets[1] ${below}`);
    expect(() => toNative({ kind: 'delay', target: there } as never)).toThrow(`target ${below}`);
    const module = handlerModule('/disk.js');
    expect(() => toNative(targets.linear([module as never]))).toThrow(`targets[0] ${below}`);
    const nested = { size: 4096, read, backends: { disk: there } } as never;
    expect(() => toNative(nested)).toThrow(`backends.disk ${below}`);
  });
});
