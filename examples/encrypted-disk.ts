// A disk whose file holds nothing but AES-256-XTS: what LUKS does, without its header. XTS keeps
// what is written secret; it does not notice if somebody changes the file.
//
//   export DISK_KEY=$(openssl rand -hex 64)
//   npx tsx examples/encrypted-disk.ts disk.img

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { type Answer, createDevice, type Handler, type HandlerRequest, targets } from 'ublk';

const SECTOR = 4096;

export class EncryptedDisk implements Handler<'file'> {
  readonly size: number;
  readonly blockSize = SECTOR;
  readonly backends: { readonly file: ReturnType<typeof targets.file> };
  readonly #key: Buffer;

  /** `key`: 64 random bytes, two keys of AES-256 in one. */
  constructor(path: string, size: number, key: Buffer) {
    // A key that is none throws here and not at the first request.
    createCipheriv('aes-256-xts', key, Buffer.alloc(16));
    this.size = size;
    this.backends = { file: targets.file(path) };
    this.#key = key;
  }

  async read(request: HandlerRequest<'file'>): Promise<void> {
    await request.read('file', request.offset);
    this.#transform(createDecipheriv, request);
  }

  write(request: HandlerRequest<'file'>): Answer<'file'> {
    // The data is ours until the request has been answered; where it goes is the answer.
    this.#transform(createCipheriv, request);
    return { backend: 'file', offset: request.offset };
  }

  flush(request: HandlerRequest<'file'>): Promise<void> {
    return request.flush('file');
  }

  /** In place, each sector with its number, so that equal sectors look different. */
  #transform(
    create: typeof createCipheriv | typeof createDecipheriv,
    { offset, data }: HandlerRequest<'file'>,
  ): void {
    const tweak = Buffer.alloc(16);
    for (let at = 0; at < data.length; at += SECTOR) {
      tweak.writeBigUInt64LE(BigInt((offset + at) / SECTOR));
      const cipher = create('aes-256-xts', this.#key, tweak);
      cipher.update(data.subarray(at, at + SECTOR)).copy(data, at);
    }
  }
}

if (process.argv[1] === import.meta.filename) {
  const { statSync } = await import('node:fs');
  const path = process.argv[2] ?? 'disk.img';
  const size = Math.floor(statSync(path).size / SECTOR) * SECTOR;
  const key = Buffer.from(process.env['DISK_KEY'] ?? '', 'hex');
  const device = await createDevice({
    target: new EncryptedDisk(path, size, key),
    buffers: 'copy', // the data comes to JavaScript
  });
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => void device.close());
  }
  console.log(`${device.path}: try mkfs.ext4 ${device.path}, then look at ${path}`);
  await device.closed;
}
