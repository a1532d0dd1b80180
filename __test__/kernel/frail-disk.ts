import { createDevice, IoError, type Handler, type HandlerRequest } from '../../src/index.ts';
import { execa } from 'execa';
import { onTestFinished } from 'vitest';

import { mountPoint } from './filesystem.ts';

/** The block size of the file system, in bytes. */
export const PAGE = 4096;

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

/** A file system on a frail disk. Synchronous calls on its files would block the thread of the disk. */
export interface FrailFolder extends AsyncDisposable {
  readonly disk: FrailDisk;
  readonly folder: string;
}

/** Serves and mounts a frail disk with a new file system, or with the bytes left by a power cut. */
export async function frailFolder(left?: Buffer): Promise<FrailFolder> {
  const disk = new FrailDisk(left ?? Buffer.alloc(64 << 20));
  const device = await createDevice({ target: disk });
  const folder = mountPoint();
  let isMounted = false;
  const unmount = async () => {
    if (isMounted) await execa('umount', [folder]);
    isMounted = false;
    await device.close();
  };
  onTestFinished(unmount);
  if (!left) await execa('mkfs.ext4', ['-q', '-b', String(PAGE), device.path]);
  await execa('mount', [device.path, folder]);
  isMounted = true;
  return { disk, folder, [Symbol.asyncDispose]: unmount };
}
