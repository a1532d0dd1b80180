// A disk that treats unflushed writes as badly as real ones may: when the power is cut, each may
// be there, gone, or torn. The disk on which to test that a program calls fsync where it must.
// `faulty-disk.test.ts` beside this file shows how.
//
//   npx tsx examples/faulty-disk.ts 64MiB       kill -USR1 cuts the power, -USR2 restores it

import { createDevice, type Handler, type HandlerRequest, IoError, parseSize } from 'ublk';

const SECTOR = 512;

export class FaultyDisk implements Handler {
  readonly size: number;
  readonly fua = true;
  /** What clients see, and what is on the platter. */
  #cache: Buffer;
  readonly #platter: Buffer;
  /** Writes since the last flush, oldest first: a power cut decides about each of them. */
  #unflushed: { offset: number; data: Buffer; fua: boolean }[] = [];
  readonly #random: () => number;
  #hasPower = true;

  constructor(size: string | number, seed = 1) {
    this.size = parseSize(size);
    this.#cache = Buffer.alloc(this.size);
    this.#platter = Buffer.alloc(this.size);
    this.#random = mulberry32(seed);
  }

  read({ offset, length, data }: HandlerRequest): void {
    this.#needPower();
    this.#cache.copy(data, 0, offset, offset + length);
  }

  write({ offset, data, fua }: HandlerRequest): void {
    this.#needPower();
    data.copy(this.#cache, offset);
    this.#unflushed.push({ offset, data: Buffer.from(data), fua });
  }

  flush(): void {
    this.#needPower();
    this.#cache.copy(this.#platter);
    this.#unflushed = [];
  }

  /**
   * Cuts the power. Of the writes that were neither flushed nor FUA, a third each is kept, lost, or
   * torn: some of its sectors are kept. Requests fail until the power is back.
   */
  cutPower(): void {
    for (const { offset, data, fua } of this.#unflushed) {
      const fate = fua ? 0 : this.#random() * 3;
      for (let at = 0; at < data.length; at += SECTOR) {
        const kept = fate < 1 || (fate < 2 && this.#random() < 0.5);
        if (kept) data.copy(this.#platter, offset + at, at, at + SECTOR);
      }
    }
    this.#unflushed = [];
    this.#cache = Buffer.from(this.#platter);
    this.#hasPower = false;
  }

  /** Clients see what is left. */
  restorePower(): void {
    this.#hasPower = true;
  }

  #needPower(): void {
    if (!this.#hasPower) throw new IoError('EIO', 'the power is off');
  }
}

/** Random numbers from 0 to 1 that follow from a seed. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

if (process.argv[1] === import.meta.filename) {
  const disk = new FaultyDisk(process.argv[2] ?? '64MiB', Date.now());
  const device = await createDevice({ target: disk });
  process.on('SIGUSR1', () => disk.cutPower());
  process.on('SIGUSR2', () => disk.restorePower());
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => void device.close());
  }
  console.log(`${device.path}: kill -USR1 ${process.pid} cuts its power, -USR2 restores it`);
  await device.closed;
}
