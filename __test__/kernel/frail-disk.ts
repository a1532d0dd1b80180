import { createDevice, IoError, type Handler, type HandlerRequest } from '../../src/index.ts';
import { execa } from 'execa';
import { onTestFinished } from 'vitest';

import { mountPoint } from './filesystem.ts';

/** The block size of the file system, in bytes. */
export const PAGE = 4096;
const SIZE = 64 << 20;

/** Looks at a write of a page: the place in bytes, the old page and the new page. */
export type Look = (place: number, held: Buffer, comes: Buffer) => void;

/**
 * A disk in memory. The test reads the contents past the page cache of the clients: a power cut at
 * this moment leaves {@link FrailDisk.bytes}.
 */
export class FrailDisk implements Handler {
  readonly size: number;
  readonly bytes: Buffer;
  /** Called for each page of a write, before the disk stores the write. An exception fails the write. */
  look: Look = () => {};

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.size = bytes.length;
  }

  read({ data, offset }: HandlerRequest): void {
    this.bytes.copy(data, 0, offset);
  }

  write({ data, offset, length }: HandlerRequest): void {
    for (let at = 0; at < length; at += PAGE) {
      const place = offset + at;
      this.look(place, this.bytes.subarray(place, place + PAGE), data.subarray(at, at + PAGE));
    }
    data.copy(this.bytes, offset);
  }

  flush(): void {}

  /** From now on fails writes of the pages chosen by `isMeant`, and counts these writes in `failed`. */
  refuse(isMeant: (...page: Parameters<Look>) => boolean): { failed: number } {
    const count = { failed: 0 };
    this.look = (...page) => {
      if (!isMeant(...page)) return;
      count.failed += 1;
      throw new IoError('EIO');
    };
    return count;
  }

  /** From now on stores all writes. */
  mend(): void {
    this.look = () => {};
  }
}

/** A frail disk with a volatile cache: until a flush, a power cut leaves any version of a written page. */
export class VolatileDisk extends FrailDisk {
  /** The pages written since the last flush: the durable version, and all later ones. */
  readonly #versions = new Map<number, Buffer[]>();

  override write(request: HandlerRequest): void {
    const { data, offset, length } = request;
    for (let at = 0; at < length; at += PAGE) {
      const place = offset + at;
      const versions = this.#versions.get(place) ?? [this.#page(place)];
      versions.push(Buffer.from(data.subarray(at, at + PAGE)));
      this.#versions.set(place, versions);
    }
    super.write(request);
  }

  override flush(): void {
    this.#versions.clear();
  }

  #page(place: number): Buffer {
    return Buffer.from(this.bytes.subarray(place, place + PAGE));
  }

  /** What a power cut at this moment leaves. */
  cut(): Buffer {
    const left = Buffer.from(this.bytes);
    for (const [place, versions] of this.#versions) {
      versions[Math.floor(Math.random() * versions.length)]!.copy(left, place);
    }
    return left;
  }
}

/** A file system on a frail disk. Synchronous calls on its files would block the thread of the disk. */
export interface FrailFolder<D extends FrailDisk = FrailDisk> extends AsyncDisposable {
  readonly disk: D;
  readonly folder: string;
}

/** Serves and mounts a frail disk with a new file system, or with the bytes left by a power cut. */
export async function frailFolder(left?: Buffer): Promise<FrailFolder> {
  return await folderOn(new FrailDisk(left ?? Buffer.alloc(SIZE)), left === undefined);
}

/** The same with a {@link VolatileDisk}. */
export async function volatileFolder(left?: Buffer): Promise<FrailFolder<VolatileDisk>> {
  return await folderOn(new VolatileDisk(left ?? Buffer.alloc(SIZE)), left === undefined);
}

async function folderOn<D extends FrailDisk>(disk: D, isNew: boolean): Promise<FrailFolder<D>> {
  const device = await createDevice({ target: disk });
  const folder = mountPoint();
  let isMounted = false;
  const unmount = async () => {
    if (isMounted) await execa('umount', [folder]);
    isMounted = false;
    await device.close();
  };
  onTestFinished(unmount);
  if (isNew) await execa('mkfs.ext4', ['-q', '-b', String(PAGE), device.path]);
  await execa('mount', [device.path, folder]);
  isMounted = true;
  return { disk, folder, [Symbol.asyncDispose]: unmount };
}
