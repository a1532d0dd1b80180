// The server under test with one thing changed: an option, or how much of it there is. Pure data.

import { type Subject, subjectId } from './subjects.ts';

const SMALL = ['4k randread qd1', '4k randread qd32', '4k randwrite qd32'];
const LOAD = '4k randread qd32';

export function variants(): Subject[] {
  return [...settings(), ...devices(), ...depths(), ...queues()];
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

/**
 * More and more devices on one shared reactor, the same load in all: each I/O goes to the next
 * device. They are read only, because they share one disk.
 */
function devices(): Subject[] {
  return (['file', 'null'] as const).flatMap((target) =>
    [1, 4, 16, 64].map((count) =>
      scaled(target, count, 'device', ['reactors=1', 'read_only=1', `devices=${count}`]),
    ),
  );
}

/** Deeper and deeper queues, the same load. */
function depths(): Subject[] {
  return [16, 128, 1024].map((depth) => ({
    ...scaled('file', depth, 'tag', [`depth=${depth}`]),
    workloads: { whole: ['4k randread qd16'], quick: [] },
    against: 'file auto batch 16 tags, 1 queue',
  }));
}

/** More and more queues on a machine of four processors, the same load from one client. */
function queues(): Subject[] {
  const name = 'file auto batch on 4 processors';
  return [1, 2, 4].map((queues) => ({
    ...scaled('file', 1, 'queue', []),
    name,
    queues,
    processors: 4,
    against: subjectId({ name, queues: 1 }),
  }));
}

function scaled(target: Target, count: number, unit: string, options: readonly string[]): Subject {
  const base = `${target} auto batch`;
  return {
    name: `${base} ${counted(count, unit)}`,
    kind: 'server',
    target,
    queues: 1,
    workloads: { whole: [LOAD], quick: [] },
    against: subjectId({ name: `${base} ${counted(1, unit)}`, queues: 1 }),
    varies: 'scale',
    options: ['buffers=auto', 'exchange=batch', ...options],
  };
}

function counted(count: number, unit: string): string {
  return count === 1 ? `1 ${unit}` : `${count} ${unit}s`;
}
