import { createDevice, IoError, type Handler, type HandlerRequest } from '../../src/index.ts';
import { execa } from 'execa';
import { onTestFinished } from 'vitest';

import { mountPoint } from './filesystem.ts';

/** What a file system writes at once, and what its files are laid out in. */
export const PAGE = 4096;

/** Decides about a page that is being written: where it goes, what is there, and what comes. */
export type Look = (place: number, held: Buffer, comes: Buffer) => void;

/**
 * A disk in memory whose contents are known at every moment, whatever the page cache of its users
 * has. The disk keeps a write when the write has been answered, so {@link bytes} is what a power cut
 * leaves.
 */
export class FrailDisk implements Handler {
  readonly size: number;
  readonly bytes: Buffer;
  /** Called for each page before anything of a write is kept. What it throws fails the write. */
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

  /** Fails the writes of pages that `isMeant` names, and counts them in the answer's `failed`. */
  refuse(isMeant: (...page: Parameters<Look>) => boolean): { failed: number } {
    const count = { failed: 0 };
    this.look = (...page) => {
      if (!isMeant(...page)) return;
      count.failed += 1;
      throw new IoError('EIO');
    };
    return count;
  }

  /** From now on the disk is well. */
  mend(): void {
    this.look = () => {};
  }
}

/** A file system on a frail disk. The files are read and written without blocking this thread. */
export interface FrailFolder extends AsyncDisposable {
  readonly disk: FrailDisk;
  readonly folder: string;
}

/** Serves and mounts a frail disk: a new file system, or what a power cut has left of one. */
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
