import { setTimeout as pause } from 'node:timers/promises';

import { getDeviceInfo } from '../../devices.ts';
import { describe } from '../describe.ts';
import { Readings, type Shown } from './readings.ts';
import { Screen, type Key } from './screen.ts';
import { count, deviceLines, sorted, SORTS, tableLines, type Sort } from './view.ts';

/** How the screen begins. */
export interface ScreenFlags {
  /** In seconds. */
  readonly interval: number;
  readonly sort: Sort;
}

/** What the keys have chosen. */
export interface Choice {
  sort: Sort;
  /** The device of the cursor. */
  cursor?: number | undefined;
  /** The device that is shown alone. */
  alone?: number | undefined;
  isPaused: boolean;
}

const HELP = 'q quit   s sort   ↑↓ choose   enter device   esc back   space pause';
/** Lines above and below the table. */
const FRAME = 4;

/** Fills the terminal until `q` or a signal. */
export async function runScreen(
  id: number | undefined,
  { interval, sort }: ScreenFlags,
  signal: AbortSignal,
): Promise<void> {
  const choice: Choice = { sort, alone: id, isPaused: false };
  const readings = new Readings();
  const over = new AbortController();
  let devices = await readings.look();
  let facts: readonly string[] = [];
  let woken = new AbortController();
  using screen = new Screen(process.stdout, process.stdin, (key) => {
    if (obey(key, choice, sorted(devices, choice.sort))) over.abort();
    draw();
    woken.abort();
  });
  const draw = (): void => screen.show(frame(devices, choice, facts, screen));
  const ended = AbortSignal.any([signal, over.signal]);
  while (!ended.aborted) {
    facts = choice.alone === undefined ? [] : await factsOf(choice.alone);
    draw();
    woken = new AbortController();
    const until = AbortSignal.any([ended, woken.signal]);
    await pause(interval * 1000, undefined, { signal: until }).catch(() => {});
    // Rates of a moment after a key would jump.
    if (!choice.isPaused && !woken.signal.aborted) devices = await readings.look();
  }
}

/** Changes the choice; whether the screen is to end. */
export function obey({ name, ctrl }: Key, choice: Choice, devices: readonly Shown[]): boolean {
  const at = devices.findIndex(({ id }) => id === choice.cursor);
  const move = (by: number): void => {
    const next = Math.min(Math.max(at + by, 0), devices.length - 1);
    choice.cursor = devices[next]?.id;
  };
  switch (name) {
    case 'q':
      return true;
    case 'c':
      return ctrl === true;
    case 's':
      choice.sort = SORTS[(SORTS.indexOf(choice.sort) + 1) % SORTS.length]!;
      break;
    case 'space':
      choice.isPaused = !choice.isPaused;
      break;
    case 'up':
      move(-1);
      break;
    case 'down':
      move(1);
      break;
    case 'return':
      choice.alone = choice.cursor ?? devices[0]?.id;
      break;
    case 'escape':
      choice.alone = undefined;
      break;
    default:
  }
  return false;
}

/** The lines of the screen. */
export function frame(
  devices: readonly Shown[],
  choice: Choice,
  facts: readonly string[],
  { columns, rows }: Pick<Screen, 'columns' | 'rows'>,
): string[] {
  const paused = choice.isPaused ? '  (paused)' : '';
  const alone = devices.find(({ id }) => id === choice.alone);
  if (alone !== undefined) return [...deviceLines(alone, facts, columns), '', `${HELP}${paused}`];
  const gone = choice.alone === undefined ? '' : `  /dev/ublkb${choice.alone} is gone`;
  const order = sorted(devices, choice.sort);
  const room = Math.max(rows - FRAME, 1);
  const cursor = order.findIndex(({ id }) => id === choice.cursor);
  const first = Math.max(cursor - room + 1, 0);
  const shown = order.slice(first, first + room);
  const hidden = order.length - shown.length;
  const more = hidden > 0 ? `  (${hidden} more)` : '';
  return [
    `${devices.length} ublk devices, ${total(devices)}, sorted by ${choice.sort}${more}${gone}`,
    '',
    ...tableLines(shown, columns, choice.cursor),
    `${HELP}${paused}`.slice(0, columns),
  ];
}

function total(devices: readonly Shown[]): string {
  const sum = devices.reduce(
    (all, { rates }) => all + (rates ? rates.readsPerSecond + rates.writesPerSecond : 0),
    0,
  );
  return `${count(sum)} requests/s`;
}

/** What only a question to the kernel and a look at all processes can tell of a device. */
async function factsOf(id: number): Promise<string[]> {
  try {
    const { buffers, exchange, queues, depth, since, users } = await describe(
      await getDeviceInfo(id),
    );
    return [
      `${queues} queues of ${depth}, buffers ${buffers}, exchange ${exchange}`,
      ...(since === undefined ? [] : [`served since ${since}`]),
      `used by ${users?.text ?? 'unknown'}`,
    ];
  } catch {
    // The device goes.
    return [];
  }
}
