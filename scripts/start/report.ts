// The result, for people. Pure functions.

import Table from 'cli-table3';
import { paint, table } from '../../src/cli/output.ts';
import { formatSize } from '../../src/size.ts';
import type { JobResult } from './protocol.ts';

export interface Outcome extends JobResult {
  /** Whether it ran on this very system. */
  native: boolean;
  /** Of the whole run, installing and building included. */
  seconds: number;
}

/** A page that tells what happened. */
export async function formatReport(outcome: Outcome): Promise<string> {
  const sections = [
    paint('bold', headline(outcome)),
    await table(facts(outcome)),
    requests(outcome),
    ways(outcome),
    comparison(outcome),
    `All of it is gone again. The program that served it: examples/serve-image.ts.\n` +
      paint('dim', `${outcome.seconds} s in all; --help tells what else can be done.`),
  ];
  return `\n${sections.join('\n\n')}\n`;
}

function headline({ counters, files, device }: JobResult): string {
  const { zeroCopyBytes, copiedBytes } = counters;
  const some = zeroCopyBytes > 0 ? 'partly zero-copy' : 'by copying';
  const how = copiedBytes === 0 ? 'zero-copy' : some;
  return `${device.path} served a real ext4 image, ${how}: ${files.count} files in and out, all equal`;
}

function facts(outcome: Outcome): string[][] {
  const { kernel, native, image, device, files, verified, check } = outcome;
  const { queues, depth, buffers } = device;
  const machine = native
    ? 'this very system'
    : `virtual machine${emulated(outcome) ? EMULATED : ''}`;
  return [
    ['Kernel', `Linux ${kernel}, ${machine}`],
    ['Image', `${formatSize(image.bytes)}, ${image.origin}`],
    [
      'Device',
      `${device.path}, ${queues} ${queues === 1 ? 'queue' : 'queues'} x ${depth} requests`,
    ],
    ['Buffers', `${buffers.mode} (${buffers.exchange} exchange)`],
    ['Features', wrap(device.features.join(', '), 70)],
    ['Copied in', `${files.count} files, ${formatSize(files.bytes)}`],
    [
      'Read back',
      `${verified.count} files, ${formatSize(verified.bytes)}; every SHA-256 as it was`,
    ],
    ['e2fsck -f', `clean; ${check}`],
  ].map(([name = '', text = '']) => [paint('dim', name), text]);
}

const EMULATED = ', its processor emulated: slow, but the columns compare';

function emulated({ cpu }: JobResult): boolean {
  return cpu.includes('TCG');
}

function requests({ counters }: JobResult): string {
  const { reads, writes, flushes, discards, writeZeroes, errors } = counters;
  return drawn(
    ['Requests', 'count', 'bytes'],
    [
      ['read', String(reads), formatSize(counters.readBytes)],
      ['write', String(writes), formatSize(counters.writeBytes)],
      ['flush', String(flushes), ''],
      ['discard', String(discards), ''],
      ['write zeroes', String(writeZeroes), ''],
      ['failed', String(errors), ''],
    ],
  );
}

function ways({ counters: { zeroCopyBytes, copiedBytes } }: JobResult): string {
  const moved = Math.max(zeroCopyBytes + copiedBytes, 1);
  const row = (name: string, bytes: number) => [name, formatSize(bytes), percent(bytes / moved)];
  return drawn(
    ['Data moved', 'bytes', 'share'],
    [row('zero-copy', zeroCopyBytes), row('copied', copiedBytes)],
  );
}

function comparison({ ublk, loop }: JobResult): string {
  const rate = (bytes: number) => `${formatSize(Math.round(bytes))}/s`;
  const row = (name: string, key: keyof typeof ublk, show: (value: number) => string) => {
    return [name, show(ublk[key]), show(loop[key]), percent(ublk[key] / loop[key])];
  };
  return drawn(
    ['Throughput', 'ublk', `loop (${loop.direct ? 'direct I/O' : 'buffered'})`, 'ublk / loop'],
    [
      row('write 1 MiB, 8 deep', 'write', rate),
      row('read 1 MiB, 8 deep', 'read', rate),
      row('random read 4 KiB, 32 deep', 'randomRead', (value) => `${Math.round(value)}/s`),
    ],
  );
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

/** A table of figures: the first column names them. */
function drawn(head: readonly string[], rows: readonly string[][]): string {
  const figures = new Table({
    head: head.map((name) => paint('bold', name)),
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
  });
  figures.push(...rows);
  return figures.toString();
}

function wrap(text: string, width: number): string {
  return text.replace(new RegExp(`(.{1,${width}})( |$)`, 'g'), '$1\n').trimEnd();
}
