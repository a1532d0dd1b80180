import { basename } from 'node:path';

import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Seconds of the longest test files in an emulated machine; a guess serves for all others. */
const SECONDS: Readonly<Record<string, number>> = {
  verify: 345,
  shutdown: 330,
  records: 250,
  threads: 190,
  'node-versions': 180,
  integrity: 165,
  examples: 165,
  cli: 150,
  'bad-input': 145,
  exit: 135,
  handler: 130,
  recovery: 130,
  zoned: 110,
  overlay: 110,
  buffers: 110,
  'rings-apart': 105,
  'handler-threads': 100,
  service: 100,
  'service-control': 100,
  layers: 90,
  'short-enter': 80,
  features: 80,
  lifetime: 75,
};
const OTHERS = 30;

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
