// The command line of `npm start`.

import { Command, InvalidArgumentError, Option } from 'commander';
import type { BufferMode } from '../../src/info.ts';
import { parseSize } from '../../src/size.ts';
import { KERNELS } from '../../vm/kernel.ts';

export interface StartOptions {
  image?: string;
  from?: string;
  size?: number;
  queues: number;
  buffers?: BufferMode;
  yes?: true;
  vm?: true;
  kernel?: string;
  json?: true;
}

const HELP = `
Examples:
  npm start                                       an image made of this checkout's own files
  npm start -- --from ~/photos --size 8GiB        … of yours
  npm start -- --image disk.img                   a copy of your ext4 image
  npm start --silent -- --yes --json              for scripts: one JSON object on stdout

The image is served with examples/serve-image.ts. Your files and images are only read; the work is
done on copies, which are removed at the end.`;

/** What `args` ask for. Prints help or the error and throws a CommanderError when they do not. */
export function parseOptions(args: readonly string[]): StartOptions {
  const mebibyte = 1024 ** 2;
  return new Command('npm start --')
    .description('Serve an ext4 image as a zero-copy block device, use it, and tell how it went.')
    .addOption(new Option('--image <file>', 'an ext4 image to work on a copy of').conflicts('size'))
    .option('--from <dir>', 'the files to use', existing)
    .option('--size <size>', 'size of the image that is made', (text) =>
      atLeast(16 * mebibyte, asSize(text)),
    )
    .option('--queues <n>', 'hardware queues of the device (loop has one)', asCount, 1)
    .addOption(
      new Option('--buffers <mode>', 'how data reaches the server (default: the best there is)') //
        .choices(['auto', 'register', 'copy']),
    )
    .option('--yes', 'use this very system where its kernel has ublk, without asking')
    .option('--vm', 'use a virtual machine even where the kernel has ublk')
    .addOption(new Option('--kernel <series>', 'use a virtual machine with it').choices(KERNELS))
    .option('--json', 'print the result as one JSON object')
    .addHelpText('after', HELP)
    .exitOverride()
    .parse(args, { from: 'user' })
    .opts();
}

function existing(path: string): string {
  if (path === '') throw new InvalidArgumentError('Name a directory.');
  return path;
}

function asSize(text: string): number {
  try {
    return parseSize(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

function atLeast(least: number, size: number): number {
  if (size < least) throw new InvalidArgumentError('It must be 16 MiB at least.');
  return size;
}

function asCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= 4096) return count;
  throw new InvalidArgumentError('It must be a whole number from 1 to 4096.');
}
