import { Option, type Command } from 'commander';

import { invalid } from '../errors.ts';
import type { Checksum, FileIntegrityOptions } from '../targets/index.ts';
import { wholeNumber } from './arguments.ts';

/** The flags of metadata beside the data. */
export interface IntegrityFlags {
  readonly integrity?: Checksum;
  readonly metadataFile?: string;
  readonly createMetadata?: true;
  readonly metadataSize?: number;
  readonly piOffset?: number;
  readonly interval?: number;
  readonly tagSize?: number;
  readonly referenceTags: boolean;
  readonly integrityCapable?: true;
}

/** The options of metadata beside the data (Linux 7.0). */
export function integrityOptions(command: Command): Command {
  const checksum = new Option(
    '--integrity <checksum>',
    'keep metadata with protection information of this kind',
  );
  const kinds: readonly Checksum[] = ['none', 'ip', 'crc16', 'crc64'];
  return command
    .optionsGroup('Metadata options:')
    .addOption(checksum.choices(kinds))
    .option('--metadata-size <bytes>', 'bytes of metadata for each interval, 1 to 255', wholeNumber)
    .option(
      '--pi-offset <bytes>',
      'offset of the protection information in the metadata',
      wholeNumber,
    )
    .option(
      '--interval <bytes>',
      'bytes of data for each piece of metadata: 512 to 4096',
      wholeNumber,
    )
    .option('--tag-size <bytes>', 'size of the application tag', wholeNumber)
    .option('--no-reference-tags', 'the reference tag does not count blocks')
    .option('--integrity-capable', 'announce that the device checks data');
}

/** The options of the flags; undefined without `--integrity`, required by all other flags. */
export function integrityOf(flags: IntegrityFlags): FileIntegrityOptions | undefined {
  const { integrity: checksum, metadataFile: path, metadataSize, piOffset } = flags;
  const { interval, tagSize, integrityCapable: capable, createMetadata: create } = flags;
  const referenceTags = flags.referenceTags ? undefined : false;
  const format = { metadataSize, piOffset, interval, tagSize, referenceTags, capable };
  const others = { path, create, ...format };
  const given = Object.entries(others).filter(([, value]) => value !== undefined);
  if (checksum !== undefined) return { checksum, ...Object.fromEntries(given) };
  const [first] = given;
  if (first === undefined) return undefined;
  throw invalid(`${FLAGS[first[0] as keyof typeof others]} needs --integrity`, KINDS);
}

const KINDS = 'metadata that means something to its user alone is --integrity none';
const FLAGS = {
  path: '--metadata-file',
  create: '--create-metadata',
  metadataSize: '--metadata-size',
  piOffset: '--pi-offset',
  interval: '--interval',
  tagSize: '--tag-size',
  referenceTags: '--no-reference-tags',
  capable: '--integrity-capable',
} as const;
