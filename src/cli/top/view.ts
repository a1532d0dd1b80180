import { paint } from '../output.ts';
import { formatSize } from '../../size.ts';
import type { Rates } from './rates.ts';
import type { Shown } from './readings.ts';

/** What devices are sorted by: the largest first, `id` the smallest first. */
export const SORTS = ['busy', 'iops', 'bytes', 'latency', 'id'] as const;
export type Sort = (typeof SORTS)[number];

/** A column: its head, and the text of a device. Numbers stand to the right. */
interface Column {
  readonly head: string;
  readonly width: number;
  readonly left?: true;
  readonly text: (device: Shown) => string;
}

const of =
  (show: (rates: Rates) => string) =>
  ({ rates }: Shown): string =>
    rates === undefined ? '-' : show(rates);

const COLUMNS: readonly Column[] = [
  { head: 'DEVICE', width: 8, left: true, text: ({ id }) => `ublkb${id}` },
  { head: 'NAME', width: 12, left: true, text: ({ name }) => name ?? '-' },
  { head: 'READ/S', width: 8, text: of(({ readsPerSecond }) => count(readsPerSecond)) },
  { head: 'WRITE/S', width: 8, text: of(({ writesPerSecond }) => count(writesPerSecond)) },
  { head: 'READ', width: 11, text: of(({ readBytesPerSecond }) => bytes(readBytesPerSecond)) },
  { head: 'WRITE', width: 11, text: of(({ writeBytesPerSecond }) => bytes(writeBytesPerSecond)) },
  { head: 'R-LAT', width: 8, text: of(({ readMs }) => latency(readMs)) },
  { head: 'W-LAT', width: 8, text: of(({ writeMs }) => latency(writeMs)) },
  { head: 'IN-FL', width: 6, text: of(({ inFlight }) => String(inFlight)) },
  { head: 'BUSY', width: 5, text: of(({ busy }) => `${Math.round(busy * 100)}%`) },
  { head: 'SERVES', width: 0, left: true, text: ({ serves, state }) => servesText(serves, state) },
];

function servesText(serves: string | undefined, state: string): string {
  return state === 'live' ? (serves ?? 'unknown') : `(${state}) ${serves ?? ''}`.trim();
}

/** The devices in the order of a column. */
export function sorted(devices: readonly Shown[], sort: Sort): Shown[] {
  const key = ({ rates, id }: Shown): number => {
    if (sort === 'id') return -id;
    if (rates === undefined) return -1;
    if (sort === 'busy') return rates.busy;
    if (sort === 'iops') return rates.readsPerSecond + rates.writesPerSecond;
    if (sort === 'bytes') return rates.readBytesPerSecond + rates.writeBytesPerSecond;
    return Math.max(rates.readMs ?? 0, rates.writeMs ?? 0);
  };
  return [...devices].sort((a, b) => key(b) - key(a) || a.id - b.id);
}

/** The table of devices, as lines of at most `width` characters. */
export function tableLines(devices: readonly Shown[], width: number, chosen?: number): string[] {
  const head = paint(
    'dim',
    line((column) => column.head, width),
  );
  const rows = devices.map((device) => {
    const text = line((column) => column.text(device), width);
    if (device.id === chosen) return paint('inverse', text.padEnd(Math.min(width, 200)));
    return device.state === 'live' ? text : paint('yellow', text);
  });
  return [head, ...rows];
}

function line(text: (column: Column) => string, width: number): string {
  const cells = COLUMNS.map((column) => {
    const cell = printable(text(column));
    if (column.width === 0) return cell;
    const fitting = cell.length > column.width ? `${cell.slice(0, column.width - 1)}…` : cell;
    return column.left ? fitting.padEnd(column.width) : fitting.padStart(column.width);
  });
  return cells.join(' ').trimEnd().slice(0, width);
}

/** Paths and names come from others: a control character would move the cursor. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?');
}

/** One device, as lines; `facts` is what else is known. */
export function deviceLines(device: Shown, facts: readonly string[], width: number): string[] {
  const { path, name, state, size, places, serverPid, serves, rates } = device;
  const shown = rates && [
    ['reads', count(rates.readsPerSecond), bytes(rates.readBytesPerSecond), latency(rates.readMs)],
    [
      'writes',
      count(rates.writesPerSecond),
      bytes(rates.writeBytesPerSecond),
      latency(rates.writeMs),
    ],
    ['flushes', count(rates.flushesPerSecond), '', latency(rates.flushMs)],
    ['discards', count(rates.discardsPerSecond), '', ''],
  ];
  const cells = (row: readonly string[]): string => {
    const [what = '', perSecond = '', size_ = '', mean = ''] = row;
    return `${what.padEnd(10)}${perSecond.padStart(10)}${size_.padStart(14)}${mean.padStart(12)}`;
  };
  const full = rates === undefined ? 0 : rates.inFlight / places;
  const lines = [
    `${paint('bold', name ?? path)}  ${path}  ${state}`,
    `serves ${serves ?? 'unknown'}${serverPid === undefined ? '' : `, process ${serverPid}`}`,
    ...(size === undefined ? [] : [`size ${formatSize(size)}`]),
    '',
    ...(shown
      ? [paint('dim', cells(['', 'per second', 'bytes/s', 'latency'])), ...shown.map(cells)]
      : []),
    ...(rates ? ['', `in flight ${rates.inFlight} of ${places} ${bar(full)}`] : []),
    ...(rates ? [`busy      ${Math.round(rates.busy * 100)}% ${bar(rates.busy)}`] : []),
    '',
    ...facts,
  ];
  return lines.map((one) => one.slice(0, Math.max(width, 40)));
}

const CELLS = 30;

function bar(share: number): string {
  const full = Math.round(Math.min(share, 1) * CELLS);
  return `[${'#'.repeat(full)}${' '.repeat(CELLS - full)}]`;
}

/** A number per second in at most seven characters. */
export function count(perSecond: number): string {
  if (perSecond === 0) return '0';
  if (perSecond < 10) return perSecond.toFixed(1);
  if (perSecond < 100_000) return String(Math.round(perSecond));
  return `${Math.round(perSecond / 1000)}k`;
}

/** Bytes per second. */
export function bytes(perSecond: number): string {
  if (perSecond === 0) return '0';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = perSecond;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A mean latency. */
export function latency(ms: number | undefined): string {
  if (ms === undefined) return '-';
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}
