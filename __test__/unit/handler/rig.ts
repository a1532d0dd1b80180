import { beforeEach } from 'vitest';

import type { UblkError } from '../../../src/errors.ts';
import { checkHandler } from '../../../src/handler/handler.ts';
import * as layout from '../../../src/handler/layout.ts';
import { HandlerQueue } from '../../../src/handler/queue.ts';
import type { Handler } from '../../../src/handler/types.ts';
import { targets } from '../../../src/targets/index.ts';
import { FakeChannel, type Asked } from './fake-channel.ts';

export const backends = {
  hot: targets.null({ size: '1MiB' }),
  cold: targets.null({ size: '1MiB' }),
};

/** Answers, as {@link FakeChannel.answers} has them. */
export const done = { tag: 0, kind: layout.ANSWER_DONE, count: 0, generation: 1, errno: 0 };
export const failed = (errno: number) => ({ ...done, kind: layout.ANSWER_FAILED, errno });

/** A handler's queue and the reactor's end of its channel, new for each test. */
export function handlerRig() {
  const rig = {
    channel: new FakeChannel(),
    warnings: [] as UblkError[],
    queue: undefined as HandlerQueue | undefined,
    serve(handler: Partial<Handler>): void {
      const checked = checkHandler({ size: '1MiB', read: ({ data }) => void data, ...handler });
      const { methods, mapped } = checked;
      const warn = (warning: UblkError) => rig.warnings.push(warning);
      const { depth } = rig.channel;
      const options = { queue: 0, depth, methods, mapped, backends: checked.backends, warn };
      rig.queue = new HandlerQueue(rig.channel, options);
      rig.queue.serve();
    },
    /** The reactor asks. */
    ask(...all: Asked[]): void {
      for (const one of all) rig.channel.ask(one);
      rig.queue!.serve();
    },
    /** The steps of tag 0 have ended so. */
    stepped(...results: number[]): void {
      rig.channel.stepped(0, ...results);
      rig.queue!.serve();
    },
  };
  beforeEach(() => {
    rig.channel = new FakeChannel();
    rig.warnings = [];
  });
  return rig;
}

export function withResolvers<T>() {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}
