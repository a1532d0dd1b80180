// The server under test with one thing changed: an option, or how much of it there is. Pure data.

import { EXCHANGES, type Exchange, type Subject, subjectId } from './subjects.ts';

const SMALL = ['4k randread qd1', '4k randread qd32', '4k randwrite qd32'];
const LOAD = '4k randread qd32';

export function variants(): Subject[] {
  return [...settings(), ...spins(), ...devices(), ...depths(), ...queues()];
}

type Target = Subject['target'];

/** Each setting of the device's queue alone, then together. */
function settings(): Subject[] {
  const all = ['nomerges=2', 'iostats=0', 'wbt_lat_usec=0'];
  const sets: Record<Target, readonly (readonly string[])[]> = {
    file: [...all.map((one) => [one]), all],
    // Throttling is off by default where nothing is written, so there it is turned on.
    null: [['nomerges=2'], ['iostats=0'], ['wbt_lat_usec=2000'], ['nomerges=2', 'iostats=0']],
  };
  return (['file', 'null'] as const).flatMap((target) =>
    sets[target].map((set) => variant(target, set.join(' '), set, SMALL)),
  );
}

function variant(
  target: Target,
  what: string,
  options: readonly string[],
  workloads: readonly string[],
): Subject {
  const base = `${target} auto batch`;
  return {
    name: `${base} ${what}`,
    kind: 'server',
    target,
    queues: 1,
    workloads: { whole: workloads, quick: [] },
    against: subjectId({ name: base, queues: 1 }),
    varies: 'settings',
    options: ['buffers=auto', 'exchange=batch', ...options],
  };
}

/** Looking for work before sleeping. */
function spins(): Subject[] {
  const spin = variant('file', 'spin=50', ['spin=50'], SMALL);
  const base = 'file auto per-io';
  const options = ['buffers=auto', 'exchange=per-io', 'spin=50'];
  const against = subjectId({ name: base, queues: 1 });
  return [spin, { ...spin, name: `${base} spin=50`, against, options }];
}

/**
 * More and more devices on one shared reactor, the same load in all: each I/O goes to the next
 * device. They are read only, because they share one disk.
 */
function devices(): Subject[] {
  return EXCHANGES.flatMap((exchange) =>
    [1, 4, 16, 64].map((count) =>
      scaled(count === 1 ? '1 device' : `${count} devices`, '1 device', {
        exchange,
        devices: count,
        options: ['reactors=1', 'read_only=1'],
      }),
    ),
  );
}

/** Deeper and deeper queues, the same load. */
function depths(): Subject[] {
  return [16, 128, 1024].map((depth) =>
    scaled(`${depth} tags`, '16 tags', {
      options: [`depth=${depth}`],
      workload: '4k randread qd16',
    }),
  );
}

/** More and more queues on a machine of four processors, the same load from one client. */
function queues(): Subject[] {
  const what = 'on 4 processors';
  return [1, 2, 4].map((count) => scaled(what, what, { queues: count, processors: 4 }));
}

type Scale = Pick<Subject, 'devices' | 'processors' | 'options'> & {
  exchange?: Exchange;
  queues?: number;
  workload?: string;
};

function scaled(what: string, least: string, scale: Scale): Subject {
  const { exchange = 'batch', workload = LOAD, queues: count = 1, options = [], ...more } = scale;
  const base = `file auto ${exchange}`;
  return {
    name: `${base} ${what}`,
    kind: 'server',
    target: 'file',
    queues: count,
    workloads: { whole: [workload], quick: [] },
    against: subjectId({ name: `${base} ${least}`, queues: 1 }),
    varies: 'scale',
    options: ['buffers=auto', `exchange=${exchange}`, ...options],
    ...more,
  };
}
