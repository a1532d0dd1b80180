// Copy-on-write disks, each against a file of the same file system. Pure data.

import { fileURLToPath } from 'node:url';

import { quote } from '../vm/job.ts';
import { type Subject, subjectId } from './subjects.ts';

const READS = ['4k randread qd1', '4k randread qd32'];
const WRITES = ['4k randwrite qd32'];

/** Layers of the deep disk: 63 of these are frozen. */
const DEEP = 64;

interface Kind {
  name: string;
  workloads: readonly string[];
  /** What the server serves, of the folder that `with_files` makes. */
  target: string;
  /** Layers over which all blocks are written before anything is measured; 0: none. */
  filled: number;
  against?: string;
}

const KINDS: readonly Kind[] = [
  { name: 'file', workloads: [...READS, ...WRITES], target: 'target=base', filled: 0 },
  { name: 'sparse file', workloads: WRITES, target: 'target=sparse', filled: 0 },
  {
    name: 'overlay, blocks of the base',
    workloads: READS,
    target: 'layer=layer',
    filled: 0,
    against: 'file',
  },
  {
    name: 'overlay, blocks of the layer',
    workloads: [...READS, ...WRITES],
    target: 'layer=layer',
    filled: 1,
    against: 'file',
  },
  {
    name: `overlay, blocks of ${DEEP} layers`,
    workloads: READS,
    target: 'layer=layer',
    filled: DEEP,
    against: 'overlay, blocks of the layer',
  },
  {
    name: 'overlay, first writes',
    workloads: WRITES,
    target: 'layer=layer',
    filled: 0,
    against: 'sparse file',
  },
];

/** Disks of others on a raw image of the same size: name, device, and the words of `forks.sh`. */
const OTHERS = [
  ['dm-snapshot over loop', '/dev/mapper/ublkbench-fork', 'dm-snapshot'],
  ['qcow2 by qemu-nbd', '/dev/nbd0', 'qcow2'],
] as const;
const FORKS = quote(fileURLToPath(new URL('forks.sh', import.meta.url)));

export function overlays(): Subject[] {
  return [...KINDS.map(toSubject), ...OTHERS.flatMap(toOthers)];
}

/** Blocks of the base, and then, on a disk of its own, first writes. */
function toOthers([name, device, word]: (typeof OTHERS)[number]): Subject[] {
  const [start, stop] = [`sh ${FORKS} begin-${word}`, `sh ${FORKS} end-${word}`];
  const kind = (part: string, whole: readonly string[], against: string): Subject => ({
    name: `${name}, ${part}`,
    kind: 'other',
    target: 'file',
    queues: 1,
    workloads: { whole, quick: [] },
    varies: 'overlays',
    other: { name, target: 'file', device, start, stop },
    against: subjectId({ name: against, queues: 1 }),
  });
  return [
    kind('blocks of the base', READS, 'ext4 file'),
    kind('first writes', WRITES, 'ext4 sparse file'),
  ];
}

function toSubject({ name, workloads, target, filled, against }: Kind): Subject {
  const subject: Subject = {
    name: `ext4 ${name}`,
    kind: 'server',
    target: 'file',
    queues: 1,
    workloads: { whole: workloads, quick: [] },
    varies: 'overlays',
    options: [target],
    files: { filled },
  };
  if (against) subject.against = subjectId({ name: `ext4 ${against}`, queues: 1 });
  return subject;
}
