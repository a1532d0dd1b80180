// Devices answered for in JavaScript, each against the native target that does as much. Pure data.

import { fileURLToPath } from 'node:url';
import { quote } from '../../vm/job.ts';
import { subjectId, type Subject } from '../subjects.ts';

const PROGRAM = fileURLToPath(new URL('server.mjs', import.meta.url));
const WORKLOADS = ['4k randread qd1', '4k randread qd32'];

interface Kind {
  name: string;
  target: Subject['target'];
  /** The native target in the same buffer mode. */
  against: string;
}

const KINDS: readonly Kind[] = [
  { name: 'sync', target: 'null', against: 'null copy per-io' },
  { name: 'async', target: 'null', against: 'null copy per-io' },
  { name: 'worker', target: 'null', against: 'null copy per-io' },
  { name: 'map', target: 'file', against: 'file auto batch' },
  { name: 'sync spin=50', target: 'null', against: 'null copy per-io' },
  { name: 'worker spin=50', target: 'null', against: 'null copy per-io' },
];

/** Beyond the numbers that the kernel gives out by itself. */
const FIRST_ID = 700;

export function handlers(): Subject[] {
  return KINDS.map(({ name, target, against }, index) => {
    const id = FIRST_ID + index;
    return {
      name: `${target} handler ${name}`,
      kind: 'other',
      target,
      queues: 1,
      workloads: { whole: WORKLOADS, quick: [] },
      against: subjectId({ name: against, queues: 1 }),
      varies: 'handlers',
      other: { name, target, device: `/dev/ublkb${id}`, ...commands(name, id) },
    };
  });
}

function commands(name: string, id: number): { start: string; stop: string; program: string } {
  const device = `/dev/ublkb${id}`;
  const ready = `/tmp/ublk-bench-${id}`;
  const program = `${quote(process.execPath)} ${quote(PROGRAM)} ${id} ${ready} ${name}`;
  // JavaScript is compiled as it runs, and as well as it can be only after some 85,000 requests.
  const warm = [
    [1, 20_000],
    [32, 100_000],
  ].map(
    ([depth, requests]) =>
      `fio --output=/dev/null --name=warm --filename=${device} --ioengine=io_uring --direct=1 ` +
      `--rw=randrw --bs=4k --iodepth=${depth} --size=512M --number_ios=${requests}`,
  );
  const isReady = `until [ -e ${ready} ] || ! kill -0 $!; do sleep 0.1; done`;
  return {
    start: [`${program} & ${isReady}`, ...warm].join('; '),
    stop: `kill $(cat ${ready}); rm ${ready}; while [ -e ${device} ]; do sleep 0.1; done`,
    program: process.execPath,
  };
}
