// Reads what guest.sh prints while it measures.

import { parseFio } from './fio.ts';
import { type Measurement, measurementOf } from './measurement.ts';

export interface Watcher {
  /** A row is being measured now. */
  row?(index: number): void;
}

/** What one run said: its machine, and each row's measurements or failures. */
export class Transcript {
  kernel = '';
  fio = '';
  readonly measurements = new Map<number, Measurement[]>();
  readonly failures = new Map<number, string>();
  #index = -1;
  #counters: Record<string, number>[] = [];
  #cpu: number[] = [];
  #memoryKiB: number | undefined;
  #result: string[] | undefined;
  readonly #watcher: Watcher;

  constructor(watcher: Watcher = {}) {
    this.#watcher = watcher;
  }

  /** Takes one line. Lines that are not guest.sh's own are skipped. */
  read(line: string): void {
    if (line === '@end') this.#finish();
    else if (this.#result) this.#result.push(line);
    else if (line.startsWith('@')) this.#event(line);
  }

  #event(line: string): void {
    const [word = '', rest = ''] = split(line);
    if (word === '@kernel') this.kernel = rest;
    else if (word === '@fio') this.fio = rest;
    else if (word === '@row') this.#begin(Number(rest));
    else if (word === '@counters') this.#counters.push(parseCounters(rest));
    else if (word === '@cpu') this.#cpu.push(busySeconds(rest));
    else if (word === '@memory') this.#memoryKiB = Number(rest);
    else if (word === '@failed') this.failures.set(this.#index, rest);
    else if (word === '@result') this.#result = [];
  }

  #begin(index: number): void {
    this.#index = index;
    this.#counters = [];
    this.#cpu = [];
    this.#memoryKiB = undefined;
    this.#watcher.row?.(index);
  }

  #finish(): void {
    const text = (this.#result ?? []).join('\n');
    this.#result = undefined;
    try {
      const [before, after] = this.#counters;
      const measurement = measurementOf({
        fio: parseFio(text),
        ...(before && after ? { counters: [before, after] as const } : {}),
        cpuSeconds: (this.#cpu[1] ?? Number.NaN) - (this.#cpu[0] ?? Number.NaN),
        memoryKiB: this.#memoryKiB,
      });
      const all = this.measurements.get(this.#index) ?? [];
      this.measurements.set(this.#index, [...all, measurement]);
    } catch (error) {
      this.failures.set(this.#index, (error as Error).message);
    }
  }
}

function split(line: string): [string, string] {
  const space = line.indexOf(' ');
  return space < 0 ? [line, ''] : [line.slice(0, space), line.slice(space + 1)];
}

/** `a=1 b=2` as an object. */
function parseCounters(text: string): Record<string, number> {
  const pairs = text.split(' ').map((pair) => pair.split('='));
  return Object.fromEntries(pairs.map(([name = '', value]) => [name, Number(value)]));
}

/** The first line of /proc/stat: all that was not idle, in hundredths of a second. */
function busySeconds(line: string): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / 100;
}
