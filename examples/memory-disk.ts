// A disk in memory that takes only the space of what was written to it.
//
//   npx tsx examples/memory-disk.ts 1TiB

import { createDevice, type Handler, type HandlerRequest, parseSize } from 'ublk';

const CHUNK = 64 * 1024;

export class MemoryDisk implements Handler {
  readonly size: number;
  readonly #chunks = new Map<number, Buffer>();

  constructor(size: string | number) {
    this.size = parseSize(size);
  }

  /** How many bytes of memory it takes. */
  get used(): number {
    return this.#chunks.size * CHUNK;
  }

  read({ offset, length, data }: HandlerRequest): void {
    for (const [number, from, at, count] of pieces(offset, length)) {
      const chunk = this.#chunks.get(number);
      if (chunk) chunk.copy(data, at, from, from + count);
      else data.fill(0, at, at + count);
    }
  }

  write({ offset, length, data }: HandlerRequest): void {
    for (const [number, from, at, count] of pieces(offset, length)) {
      let chunk = this.#chunks.get(number);
      if (!chunk) this.#chunks.set(number, (chunk = Buffer.alloc(CHUNK)));
      data.copy(chunk, from, at, at + count);
    }
  }

  discard(request: HandlerRequest): void {
    this.writeZeroes(request);
  }

  writeZeroes({ offset, length }: HandlerRequest): void {
    for (const [number, from, , count] of pieces(offset, length)) {
      if (count === CHUNK) this.#chunks.delete(number);
      else this.#chunks.get(number)?.fill(0, from, from + count);
    }
  }
}

/** What of a range lies in which chunk: its number, from where, where in the data, how much. */
function* pieces(offset: number, length: number): Generator<[number, number, number, number]> {
  for (let at = 0; at < length;) {
    const from = (offset + at) % CHUNK;
    const count = Math.min(CHUNK - from, length - at);
    yield [Math.floor((offset + at) / CHUNK), from, at, count];
    at += count;
  }
}

if (process.argv[1] === import.meta.filename) {
  const device = await createDevice({ target: new MemoryDisk(process.argv[2] ?? '1GiB') });
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => void device.close());
  }
  console.log(`${device.path}: try mkfs.ext4 ${device.path}`);
  await device.closed;
}
