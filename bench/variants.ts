// The server under test with one thing changed: an option, or how much of it there is. Pure data.

import { EXCHANGES, type Exchange, type Subject, subjectId } from './subjects.ts';

const SMALL = ['4k randread qd1', '4k randread qd32', '4k randwrite qd32'];
const LOAD = '4k randread qd32';

export function variants(): Subject[] {
  return [...settings(), ...spins(), ...places(), ...devices(), ...depths(), ...queues()];
}

/** What a queue can do without. */
const SETTINGS = ['nomerges=2', 'iostats=0', 'wbt_lat_usec=0'];

/** Each setting of the device's queue alone, then together, then of the disk behind it as well. */
function settings(): Subject[] {
  return [
    ...SETTINGS.map((one) => variant('file', 'batch', [one])),
    ...EXCHANGES.map((exchange) => variant('file', exchange, SETTINGS)),
    ...EXCHANGES.map((exchange) => tuned(variant('file', exchange, SETTINGS))),
    tuned(variant('file', 'per-io', ['spin=50', ...SETTINGS])),
    variant('null', 'batch', ['nomerges=2']),
    variant('null', 'batch', ['iostats=0']),
    variant('null', 'batch', ['nomerges=2', 'iostats=0']),
    // Throttling is off by default where nothing is written, so there it is turned on.
    variant('null', 'batch', ['wbt_lat_usec=2000']),
  ];
}

function tuned(subject: Subject): Subject {
  return { ...subject, name: `${subject.name} on both disks`, backing: SETTINGS };
}

/** Looking for work before sleeping. */
function spins(): Subject[] {
  return EXCHANGES.map((exchange) => variant('file', exchange, ['spin=50']));
}

/** A client that stays on a processor, and the server on the same one, or on the other. */
function places(): Subject[] {
  const at = (exchange: Exchange, cpu: number, where: string): Subject => {
    const subject = variant('file', exchange, [`affinity=${cpu}`]);
    return { ...subject, name: `file auto ${exchange} ${where} its client`, client: 0 };
  };
  const near = tuned(variant('file', 'batch', ['affinity=0', ...SETTINGS]));
  return [
    ...EXCHANGES.flatMap((exchange) => [
      at(exchange, 0, 'on the CPU of'),
      at(exchange, 1, 'on another CPU than'),
    ]),
    { ...near, name: `${near.name}, on the CPU of its client`, client: 0 },
  ];
}

function variant(
  target: Subject['target'],
  exchange: Exchange,
  options: readonly string[],
): Subject {
  const base = `${target} auto ${exchange}`;
  return {
    name: `${base} ${options.join(' ')}`,
    kind: 'server',
    target,
    queues: 1,
    workloads: { whole: SMALL, quick: [] },
    against: subjectId({ name: base, queues: 1 }),
    varies: 'settings',
    options: ['buffers=auto', `exchange=${exchange}`, ...options],
  };
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
