import { constants } from 'node:fs';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { afterEach, expect, test } from 'vitest';

import { createDevice, targets, type Device, type Target } from '../../src/index.ts';
import { PAGE, volatileFolder } from './frail-disk.ts';
import { sparseImage, temporaryFolder } from './image.ts';
import { CYCLES, pause } from './load.ts';
import { expectNoDevices, withUblk } from './machine.ts';

const BLOCKS = 1024;
const WRITERS = 4;
const CUTS = Math.max(3, CYCLES);

const below = (limit: number): number => Math.floor(Math.random() * limit);

/** Memory for direct I/O: WebAssembly's begins at a page. @types/node has only the types of WebAssembly. */
function aligned(bytes: number): Buffer {
  type Memory = new (options: { initial: number }) => { buffer: ArrayBuffer };
  const { WebAssembly } = globalThis as unknown as { WebAssembly: { Memory: Memory } };
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65_536) });
  return Buffer.from(memory.buffer, 0, bytes);
}

const MEMORY = aligned(BLOCKS * PAGE);
/** The most blocks of a write. */
const LONGEST = 8;

/** The stamp of each block of a device; each block holds one stamp. */
async function stampsOf({ path }: Pick<Device, 'path'>): Promise<number[]> {
  await using file = await open(path, constants.O_RDONLY | constants.O_DIRECT);
  await file.read(MEMORY, 0, BLOCKS * PAGE, 0);
  return Array.from({ length: BLOCKS }, (_, block) => {
    const page = MEMORY.subarray(block * PAGE, (block + 1) * PAGE);
    const stamp = page.readUInt32LE(0);
    expect(page.equals(filled(Buffer.alloc(PAGE), stamp))).toBe(true);
    return stamp;
  });
}

function filled(bytes: Buffer, stamp: number): Buffer {
  new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).fill(stamp);
  return bytes;
}

/** What was written to a disk, and what of that is durable. */
class Written {
  /** Of each block: the durable stamp, and all stamps whose writes have begun since. */
  readonly #stamps: number[][];
  /** Of each block: the stamp of the last write that has ended. */
  #ended: number[];
  static #next = 1;

  constructor(found: readonly number[]) {
    this.#stamps = found.map((stamp) => [stamp]);
    this.#ended = [...found];
  }

  async write(file: FileHandle, block: number, bytes: Buffer): Promise<void> {
    const count = bytes.length / PAGE;
    const stamp = Written.#next++;
    for (let at = block; at < block + count; at += 1) this.#stamps[at]!.push(stamp);
    await file.write(filled(bytes, stamp), 0, bytes.length, block * PAGE);
    this.#ended.fill(stamp, block, block + count);
  }

  /** Runs something after which all is durable that has ended before. */
  async settle<T>(flush: () => Promise<T>): Promise<T> {
    const ended = [...this.#ended];
    const result = await flush();
    this.#stamps.forEach((stamps, block) => {
      const durable = stamps.indexOf(ended[block]!);
      if (durable > 0) stamps.splice(0, durable);
    });
    return result;
  }

  /** What each block may hold after a power cut at this moment. */
  allowed(): readonly (readonly number[])[] {
    return this.#stamps.map((stamps) => [...stamps]);
  }
}

/** Writes to a fourth of the blocks, with a flush now and then. */
async function writeOn(file: FileHandle, written: Written, number: number, on: () => boolean) {
  const quarter = BLOCKS / WRITERS;
  const memory = aligned(LONGEST * PAGE);
  while (on()) {
    const block = number * quarter + below(quarter - LONGEST);
    await written.write(file, block, memory.subarray(0, (1 + below(LONGEST)) * PAGE));
    if (below(12) === 0) await written.settle(() => file.datasync());
    await turn();
  }
}

type Allowed = ReturnType<Written['allowed']>;

/** The blocks that hold what no power cut can leave. */
function wrongOf(found: readonly number[], allowed: Allowed): object[] {
  return found.flatMap((stamp, block) =>
    allowed[block]!.includes(stamp) ? [] : [{ block, stamp, allowed: allowed[block] }],
  );
}

interface Cut {
  /** The disk below, after the cut. */
  readonly left: Buffer;
  /** What the disk above may hold. */
  readonly allowed: Allowed;
  /** What the child may hold, which was forked before the cut. */
  readonly forked: Allowed | undefined;
}

const LAYER = 'vm.layer';

/** The power is gone, and the machine is not: no history of this boot may answer for the layer. */
const afterCut = () => ({ history: temporaryFolder(), loseUnflushed: true });

/** Serves an overlay on a file system, writes, forks and merges, and cuts the power some time later. */
async function runUntilCut(
  base: Target,
  before: Buffer | undefined,
  found: readonly number[],
  { child, waits }: { child: string; waits: boolean },
): Promise<Cut> {
  await using place = await volatileFolder(before);
  const layer = join(place.folder, LAYER);
  const target = targets.overlay(base, layer, { create: true, ...afterCut() });
  await using device = await createDevice({ target });
  await using file = await open(device.path, constants.O_RDWR | constants.O_DIRECT);
  const written = new Written(found);
  let [on, forked] = [true, undefined as Allowed | undefined];
  const writers = Array.from({ length: WRITERS }, (_, number) =>
    writeOn(file, written, number, () => on),
  );
  const forking = written
    .settle(() => device.fork([join(place.folder, child)]))
    .then(() => void (forked = written.allowed()));
  const merging = forking.then(() => device.flatten({ bytesPerSecond: '4MiB', prune: true }));
  if (waits) await forking;
  await pause(below(1500));
  const cut = { left: place.disk.cut(), allowed: written.allowed(), forked };
  on = false;
  await Promise.all([...writers, merging]);
  return cut;
}

async function wrongIn(serving: Promise<Device>, allowed: Allowed): Promise<object[]> {
  await using device = await serving;
  return wrongOf(await stampsOf(device), allowed);
}

withUblk('an overlay on a disk with a volatile cache', () => {
  afterEach(expectNoDevices);

  const life = { timeout: 120_000 + 60_000 * CUTS };
  test('keeps what was flushed and what was forked, however the power goes', life, async () => {
    const base = targets.file(sparseImage(BLOCKS * PAGE), { readOnly: true });
    let before: Buffer | undefined;
    let found: readonly number[] = Array.from({ length: BLOCKS }, () => 0);
    for (let number = 0; number < CUTS; number += 1) {
      const child = `child-${number}.layer`;
      const how = { child, waits: number % 2 === 1 };
      const { left, allowed, forked } = await runUntilCut(base, before, found, how);
      await using place = await volatileFolder(left);
      const serve = (name: string) =>
        createDevice({ target: targets.overlay(base, join(place.folder, name), afterCut()) });
      expect(forked ? await wrongIn(serve(child), forked) : []).toEqual([]);
      await rm(join(place.folder, child), { force: true });
      {
        await using device = await serve(LAYER);
        found = await stampsOf(device);
        expect(wrongOf(found, allowed)).toEqual([]);
        await device.flatten({ prune: true });
        expect(await stampsOf(device)).toEqual(found);
      }
      before = Buffer.from(place.disk.bytes);
    }
  });
});
