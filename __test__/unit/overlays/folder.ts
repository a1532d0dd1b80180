import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createOverlay, forkOverlay, targets, type Target } from '../../../src/index.ts';
import { simulate, type SimulatedDisk } from '../../../src/testing/index.ts';

/** The size of the base, all bytes of which are 9. */
export const SIZE = 1 << 20;

/** Blocks of 4 KiB with this byte. */
export const block = (byte: number, blocks = 1): Buffer => Buffer.alloc(blocks * 4096, byte);

/** A folder with a base and layers, for tests. */
export class OverlayFolder {
  readonly path = mkdtempSync(join(tmpdir(), 'ublk-overlay-'));
  readonly image = this.file('base.img');

  constructor() {
    writeFileSync(this.image, Buffer.alloc(SIZE, 9));
  }

  get base(): Target {
    return targets.file(this.image);
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Makes a layer on the base, or on another layer, and changes the disk. */
  async layer(
    name: string,
    change: (disk: SimulatedDisk) => Promise<void>,
    below?: string,
  ): Promise<string> {
    const path = this.file(name);
    if (below === undefined) await createOverlay(this.base, path);
    else await forkOverlay(below, [path], { history: '/dev/shm' });
    await this.change(path, change);
    return path;
  }

  /** Serves a layer, and changes the disk. */
  async change(path: string, change: (disk: SimulatedDisk) => Promise<void>): Promise<void> {
    await using disk = await simulate(targets.overlay(this.base, path, { history: '/dev/shm' }));
    await change(disk);
  }

  /** All bytes of a disk. */
  async read(path: string): Promise<Buffer> {
    let bytes = Buffer.alloc(0);
    await this.change(path, async (disk) => {
      bytes = Buffer.from(await disk.read(0, SIZE));
    });
    return bytes;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}
