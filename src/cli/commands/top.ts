import { setTimeout as pause } from 'node:timers/promises';

import { getDeviceInfo } from '../../devices.ts';
import { paint, type OutputFlags } from '../output.ts';
import { hearSignals } from '../signals.ts';
import { Readings, type Shown } from '../top/readings.ts';
import { runScreen } from '../top/run-screen.ts';
import { sorted, tableLines, type Sort } from '../top/view.ts';

/** The flags of `ublk top`. */
export interface TopFlags extends OutputFlags {
  /** In seconds. */
  readonly interval: number;
  /** After how many looks the command ends; a screen stays until `q`. */
  readonly count?: number;
  readonly sort: Sort;
  readonly plain?: true;
}

/** `ublk top [ID]`: what devices do now; a screen on a terminal, else a table or a line of JSON per look. */
export async function top(id: number | undefined, flags: TopFlags): Promise<void> {
  // A wrong number is an error at once.
  if (id !== undefined) await getDeviceInfo(id);
  const { first: signal } = hearSignals(['SIGINT', 'SIGTERM', 'SIGHUP']);
  const isScreen = process.stdout.isTTY && process.stdin.isTTY && !flags.plain && !flags.json;
  if (isScreen) return await runScreen(id, flags, signal);
  const readings = new Readings();
  await readings.look();
  for (let look = 0; look < (flags.count ?? Infinity); look += 1) {
    await pause(flags.interval * 1000, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    const all = await readings.look();
    const devices = id === undefined ? all : all.filter((one) => one.id === id);
    await write(flags.json ? json(devices) : text(devices, flags.sort));
  }
}

function json(devices: readonly Shown[]): string {
  return JSON.stringify({ time: new Date().toISOString(), devices });
}

function text(devices: readonly Shown[], sort: Sort): string {
  const lines = devices.length === 0 ? ['no ublk devices'] : tableLines(sorted(devices, sort), 200);
  return [paint('bold', new Date().toISOString()), ...lines, ''].join('\n');
}

/** Waits for a reader that is slower than the looks. */
async function write(output: string): Promise<void> {
  await new Promise<void>((resolve) => process.stdout.write(`${output}\n`, () => resolve()));
}
