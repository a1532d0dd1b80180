import { basename } from 'node:path';

import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Seconds of the longest test files in an emulated machine; a guess serves for all others. */
const SECONDS: Readonly<Record<string, number>> = {
  upgrade: 430,
  'service-control': 140,
  shutdown: 137,
  records: 107,
  verify: 93,
  threads: 85,
  'node-versions': 80,
  recovery: 75,
  cli: 63,
  exit: 63,
  'handler-threads': 61,
  flatten: 60,
  examples: 61,
  'bad-input': 49,
  integrity: 47,
  service: 46,
  overlay: 45,
  buffers: 45,
  handler: 43,
  lifetime: 38,
  'short-enter': 36,
  control: 36,
  unprivileged: 35,
  'rings-apart': 33,
  layers: 30,
  features: 30,
  swap: 29,
  zoned: 28,
  fork: 26,
  top: 24,
  'power-cuts': 20,
};
const OTHERS = 15;

/** Deals test files to machines (`--shard`) so that all machines end at about the same time. */
export class Balanced extends BaseSequencer {
  override async shard(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { index, count } = this.ctx.config.shard!;
    const shards = Array.from({ length: count }, () => ({
      seconds: 0,
      files: [] as TestSpecification[],
    }));
    const known = files.map((file) => ({ file, seconds: secondsOf(file) }));
    const name = ({ file }: (typeof known)[number]): string => file.moduleId;
    for (const one of known.sort(
      (a, b) => b.seconds - a.seconds || name(a).localeCompare(name(b)),
    )) {
      const lightest = shards.reduce((least, shard) =>
        shard.seconds < least.seconds ? shard : least,
      );
      lightest.seconds += one.seconds;
      lightest.files.push(one.file);
    }
    return shards[index - 1]!.files;
  }
}

function secondsOf({ moduleId }: TestSpecification): number {
  return SECONDS[basename(moduleId, '.test.ts')] ?? OTHERS;
}
