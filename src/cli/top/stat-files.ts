import { closeSync, openSync, readSync } from 'node:fs';

import { parseDiskStat, type DiskStat } from '../../disk-stat.ts';

/** The counters of a device, and the text that they come from. */
interface Seen {
  readonly fd: number;
  text: string;
  stat: DiskStat;
}

/**
 * The files with the kernel's counters of many devices, kept open: a look costs a system call per device, and
 * an idle device no more.
 */
export class StatFiles {
  readonly #seen = new Map<number, Seen>();
  readonly #buffer = Buffer.alloc(512);

  /** The counters of a device: the same object as before if nothing has changed; absent without a disk. */
  read(id: number): DiskStat | undefined {
    const seen = this.#seen.get(id) ?? this.#open(id);
    if (seen === undefined) return undefined;
    try {
      const length = readSync(seen.fd, this.#buffer, 0, this.#buffer.length, 0);
      const text = this.#buffer.toString('latin1', 0, length);
      if (text !== seen.text) [seen.text, seen.stat] = [text, parseDiskStat(text)];
      return seen.stat;
    } catch {
      // The disk is gone; another one may have its number.
      this.#forget(id, seen);
      return undefined;
    }
  }

  /** Closes the files of all other devices. */
  keep(ids: ReadonlySet<number>): void {
    for (const [id, seen] of this.#seen) if (!ids.has(id)) this.#forget(id, seen);
  }

  #open(id: number): Seen | undefined {
    try {
      const seen = { fd: openSync(`/sys/block/ublkb${id}/stat`, 'r'), text: '', stat: NOTHING };
      this.#seen.set(id, seen);
      return seen;
    } catch {
      return undefined;
    }
  }

  #forget(id: number, { fd }: Seen): void {
    closeSync(fd);
    this.#seen.delete(id);
  }
}

const NOTHING = parseDiskStat('');
