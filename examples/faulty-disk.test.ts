// A test that finds a missing fsync, in plain vitest, on any Linux.
//
//   npx vitest run examples/faulty-disk.test.ts

import { expect, test } from 'vitest';
import { simulate, type SimulatedDisk } from 'ublk/testing';

import { FaultyDisk } from './faulty-disk.ts';

/** A counter on a disk: two slots, written in turn, and a first sector that says which is valid. */
class Counter {
  readonly #disk: SimulatedDisk;
  readonly #flushesSlot: boolean;

  constructor(disk: SimulatedDisk, flushesSlot: boolean) {
    this.#disk = disk;
    this.#flushesSlot = flushesSlot;
  }

  async set(value: number): Promise<void> {
    const slot = (value % 2) + 1;
    await this.#disk.write(slot * 4096, Buffer.from(`value ${value}`.padEnd(4096)));
    // Without this the pointer may be on the platter before what it points to.
    if (this.#flushesSlot) await this.#disk.flush();
    await this.#disk.write(0, Buffer.from(`slot ${slot}`.padEnd(4096)));
    await this.#disk.flush();
  }

  async get(): Promise<number | undefined> {
    const read = async (slot: number) => (await this.#disk.read(slot * 4096, 4096)).toString();
    const slot = /^slot ([12]) *$/.exec(await read(0))?.[1];
    const value = slot && /^value (\d+) *$/.exec(await read(Number(slot)))?.[1];
    return value === undefined ? undefined : Number(value);
  }
}

/** Its power is cut when a flush has just come. */
class CutAtFlush extends FaultyDisk {
  flushesLeft = Infinity;

  override flush(): void {
    this.flushesLeft -= 1;
    if (this.flushesLeft === 0) this.cutPower();
    super.flush();
  }
}

/** Cuts the power at the last flush of the tenth `set`, and tells what is left. */
async function valueAfterPowerCut(flushesSlot: boolean, seed: number) {
  const faulty = new CutAtFlush('64KiB', seed);
  await using disk = await simulate(faulty);
  const counter = new Counter(disk, flushesSlot);
  for (let value = 1; value < 10; value++) await counter.set(value);
  faulty.flushesLeft = flushesSlot ? 2 : 1;
  await expect(counter.set(10)).rejects.toThrow('EIO');
  faulty.restorePower();
  return await counter.get();
}

const seeds = Array.from({ length: 20 }, (_, index) => index);

test('a counter that flushes its slot first is old or new after a power cut', async () => {
  for (const seed of seeds) {
    expect([9, 10]).toContain(await valueAfterPowerCut(true, seed));
  }
});

test('a counter that does not is found out', async () => {
  const left = new Set<number | undefined>();
  for (const seed of seeds) left.add(await valueAfterPowerCut(false, seed));
  // The pointer got through, its slot did not: an old value, or none at all.
  expect([...left].filter((value) => value !== 9 && value !== 10)).not.toEqual([]);
});
