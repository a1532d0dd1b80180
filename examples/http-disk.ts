// A read-only disk that is a file on a web server: range requests bring what is read, and a cache
// keeps what was read last. The server must know ranges and must not change the file.
//
//   npx tsx examples/http-disk.ts https://example.org/disk.img

import { createDevice, type Handler, type HandlerRequest, IoError } from 'ublk';

const CHUNK = 1024 * 1024;

export class HttpDisk implements Handler {
  readonly size: number;
  readonly #url: string;
  readonly #etag: string | null;
  readonly #maxChunks: number;
  /** The chunk read last comes last. Promises, so that two readers of one chunk share a request. */
  readonly #cache = new Map<number, Promise<Buffer>>();

  private constructor(url: string, size: number, etag: string | null, cacheBytes: number) {
    this.#url = url;
    this.size = size;
    this.#etag = etag;
    this.#maxChunks = Math.max(1, Math.floor(cacheBytes / CHUNK));
  }

  static async open(url: string, { cacheBytes = 64 * CHUNK } = {}): Promise<HttpDisk> {
    const response = await fetch(url, { method: 'HEAD' });
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    if (response.headers.get('accept-ranges') !== 'bytes') throw new Error(`${url}: no ranges`);
    const bytes = Number(response.headers.get('content-length'));
    // A disk has whole sectors.
    const size = Math.floor(bytes / 512) * 512;
    return new HttpDisk(url, size, response.headers.get('etag'), cacheBytes);
  }

  async read({ offset, length, data }: HandlerRequest): Promise<void> {
    const first = Math.floor(offset / CHUNK);
    const last = Math.floor((offset + length - 1) / CHUNK);
    const numbers = Array.from({ length: last - first + 1 }, (_, index) => first + index);
    const chunks = await Promise.all(numbers.map((number) => this.#chunk(number)));
    let at = 0;
    for (const chunk of chunks) {
      const from = (offset + at) % CHUNK;
      at += chunk.copy(data, at, from, from + length - at);
    }
  }

  #chunk(number: number): Promise<Buffer> {
    let chunk = this.#cache.get(number);
    if (!chunk) {
      chunk = this.#fetch(number);
      // A failure is not for keeping: whoever reads next tries again.
      chunk.catch(() => this.#cache.delete(number));
    }
    this.#cache.delete(number);
    this.#cache.set(number, chunk);
    for (const oldest of this.#cache.keys()) {
      if (this.#cache.size <= this.#maxChunks) break;
      this.#cache.delete(oldest);
    }
    return chunk;
  }

  async #fetch(number: number): Promise<Buffer> {
    const from = number * CHUNK;
    const length = Math.min(CHUNK, this.size - from);
    const headers = new Headers({ range: `bytes=${from}-${from + length - 1}` });
    // Bytes of two versions of the file must not meet: the server answers 412 if it has changed.
    if (this.#etag) headers.set('if-match', this.#etag);
    const response = await fetch(this.#url, { headers, signal: AbortSignal.timeout(20_000) });
    const bytes = Buffer.from(await response.arrayBuffer());
    if (response.status === 206 && bytes.length === length) return bytes;
    throw new IoError('ENOLINK', `${this.#url}: ${response.status}, ${bytes.length} bytes`);
  }
}

if (process.argv[1] === import.meta.filename) {
  const device = await createDevice({ target: await HttpDisk.open(process.argv[2] ?? '') });
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => void device.close());
  }
  console.log(`${device.path}: try mount -o ro ${device.path} /mnt`);
  await device.closed;
}
