import { readdirSync } from 'node:fs';
import { performance } from 'node:perf_hooks';

import { listDevices } from '../../devices.ts';
import type { DeviceInfo } from '../../info.ts';
import { readNote } from '../../notes.ts';
import { ratesOf, type Rates, type Reading } from './rates.ts';
import { StatFiles } from './stat-files.ts';

/** How long facts of devices are taken for true while no device comes or goes, in milliseconds. */
const FACTS_MS = 10_000;

/** What `ublk top` shows of one device. */
export interface Shown {
  readonly id: number;
  readonly path: string;
  readonly name?: string;
  readonly state: string;
  /** In bytes; absent without a disk. */
  readonly size?: number;
  /** The most requests in flight: queues x depth. */
  readonly places: number;
  readonly serverPid?: number;
  readonly serves?: string;
  /** Absent for a device that has just come, and for a device without a disk. */
  readonly rates?: Rates;
}

/**
 * The devices of the machine, read again and again. What changes seldom is asked for when a device has come or
 * gone, and every few seconds.
 */
export class Readings {
  readonly #files = new StatFiles();
  #facts: Omit<Shown, 'rates'>[] = [];
  #factsOf = '';
  #factsAt = -Infinity;
  #before = new Map<number, Reading>();

  /** All devices, with their rates since the last call. */
  async look(): Promise<Shown[]> {
    const ids = present();
    const now = performance.now();
    if (ids !== this.#factsOf || now - this.#factsAt > FACTS_MS) {
      this.#facts = (await listDevices()).map(factsOf);
      [this.#factsOf, this.#factsAt] = [ids, now];
      this.#files.keep(new Set(this.#facts.map(({ id }) => id)));
    }
    const readings = new Map<number, Reading>();
    const shown = this.#facts.map((facts) => {
      const stat = this.#files.read(facts.id);
      if (stat === undefined) return facts;
      const reading = { atMs: performance.now(), stat };
      readings.set(facts.id, reading);
      const before = this.#before.get(facts.id);
      return before === undefined ? facts : { ...facts, rates: ratesOf(before, reading) };
    });
    this.#before = readings;
    return shown;
  }
}

/** The devices that there are, as a text to compare. */
function present(): string {
  try {
    return readdirSync('/sys/class/ublk-char').join(' ');
  } catch {
    // The module is not loaded.
    return '';
  }
}

function factsOf(info: DeviceInfo): Omit<Shown, 'rates'> {
  const { id, path, state, size, queues, depth, serverPid } = info;
  const { name, serves } = readNote(info) ?? {};
  return {
    id,
    path,
    ...(name !== undefined && { name }),
    state,
    ...(size !== undefined && { size }),
    places: queues * depth,
    ...(serverPid !== undefined && { serverPid }),
    ...(serves !== undefined && { serves }),
  };
}
