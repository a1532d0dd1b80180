import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';

import { describe, expect, test } from 'vitest';

import { parseDiskStat } from '../../../src/disk-stat.ts';
import { ratesOf } from '../../../src/cli/top/rates.ts';
import type { Shown } from '../../../src/cli/top/readings.ts';
import { frame, obey, type Choice } from '../../../src/cli/top/run-screen.ts';
import { Screen, type Key } from '../../../src/cli/top/screen.ts';
import {
  bytes,
  count,
  deviceLines,
  latency,
  sorted,
  SORTS,
  tableLines,
} from '../../../src/cli/top/view.ts';

const before = parseDiskStat('100 0 800 50 10 0 80 40 0 500 0 0 0 0 0 3 9');
const after = parseDiskStat('300 0 2400 150 10 0 80 40 5 1500 0 0 0 0 0 7 29');

function device(id: number, more: Partial<Shown> = {}): Shown {
  const rates = ratesOf({ atMs: 0, stat: before }, { atMs: 2000, stat: after });
  return { id, path: `/dev/ublkb${id}`, state: 'live', places: 128, rates, ...more };
}

describe('the rates between two readings', () => {
  test('are per second, with means of the requests in between', () => {
    expect(device(0).rates).toEqual({
      readsPerSecond: 100,
      writesPerSecond: 0,
      readBytesPerSecond: 409_600,
      writeBytesPerSecond: 0,
      discardsPerSecond: 0,
      flushesPerSecond: 2,
      readMs: 0.5,
      flushMs: 5,
      inFlight: 5,
      busy: 0.5,
    });
  });

  test('are never negative, whatever device has the number now', () => {
    const rates = ratesOf({ atMs: 5, stat: after }, { atMs: 5, stat: before });
    expect(Object.values(rates).every((value) => value >= 0)).toBe(true);
  });
});

test.each([
  [count(0), '0'],
  [count(3.14), '3.1'],
  [count(99_999.6), '100000'],
  [count(1_234_567), '1235k'],
  [bytes(0), '0'],
  [bytes(512), '512 B'],
  [bytes(1536), '1.5 KiB'],
  [bytes(3e9), '2.8 GiB'],
  [latency(undefined), '-'],
  [latency(0.0421), '42 µs'],
  [latency(2.35), '2.4 ms'],
  [latency(48), '48 ms'],
  [latency(1500), '1.5 s'],
])('%s is shown as %s', (shown, expected) => {
  expect(shown).toBe(expected);
});

describe('the table', () => {
  const idle = { ...device(2).rates!, readsPerSecond: 0, busy: 0 };

  test('has the busiest device first, and every order has all devices', () => {
    const devices = [device(2, { rates: idle }), device(7), device(1)];
    const { rates: _none, ...fresh } = device(9);
    expect(sorted([...devices, fresh], 'busy').map(({ id }) => id)).toEqual([1, 7, 2, 9]);
    for (const sort of SORTS) expect(sorted(devices, sort)).toHaveLength(3);
    expect(sorted(devices, 'id').map(({ id }) => id)).toEqual([1, 2, 7]);
  });

  test('fits the width, and lets no name move the cursor', () => {
    const name = '\x1b[2Jvery long and wicked name';
    const lines = tableLines([device(1, { name, serves: '/srv/\n\x07disk.img' })], 100);
    for (const line of lines) {
      const plain = stripVTControlCharacters(line);
      expect(plain.length).toBeLessThanOrEqual(100);
      // oxlint-disable-next-line no-control-regex -- that is what must not be there
      expect(plain).not.toMatch(/[\x00-\x1f]/);
    }
    expect(lines[1]).toContain('?[2Jvery lo…');
    expect(lines[1]).toContain('0.5 ms'.replace('0.5 ms', '500 µs'));
  });

  test('names the state of a device without a server', () => {
    const [, line] = tableLines([device(1, { state: 'quiesced', serves: '/a' })], 200);
    expect(line).toContain('(quiesced) /a');
  });
});

test('a device alone shows rates, queue use and what else is known', () => {
  const lines = deviceLines(device(3, { name: 'data', size: 1 << 30 }), ['used by nobody'], 100);
  const text = stripVTControlCharacters(lines.join('\n'));
  for (const part of ['data', '1 GiB', 'in flight 5 of 128', 'busy      50%', 'used by nobody']) {
    expect(text).toContain(part);
  }
  expect(text).toMatch(/reads +100 +400 KiB +500 µs/);
});

describe('the keys', () => {
  const devices = [device(1), device(2), device(3)];
  const press = (choice: Choice, ...keys: Key[]): boolean[] =>
    keys.map((key) => obey(key, choice, devices));

  test('choose, show and leave a device', () => {
    const choice: Choice = { sort: 'busy', isPaused: false };
    press(choice, { name: 'down' }, { name: 'down' }, { name: 'up' }, { name: 'return' });
    expect(choice).toMatchObject({ cursor: 1, alone: 1 });
    press(choice, { name: 'escape' }, ...Array.from({ length: 9 }, () => ({ name: 'down' })));
    expect(choice).toMatchObject({ cursor: 3, alone: undefined });
  });

  test('sort, pause and end', () => {
    const choice: Choice = { sort: 'busy', isPaused: false };
    expect(press(choice, { name: 's' }, { name: 'space' }, { name: 'c' })).not.toContain(true);
    expect(choice).toMatchObject({ sort: 'iops', isPaused: true });
    expect(press(choice, { name: 'q' }, { name: 'c', ctrl: true })).toEqual([true, true]);
    expect(obey({ name: 'down' }, choice, [])).toBe(false);
  });
});

test('a screen of many devices keeps the chosen one in sight', () => {
  const devices = Array.from({ length: 100 }, (_, id) => device(id));
  const choice: Choice = { sort: 'id', isPaused: true, cursor: 60 };
  const lines = frame(devices, choice, [], { columns: 100, rows: 24 }).map((line) =>
    stripVTControlCharacters(line),
  );
  expect(lines).toHaveLength(24);
  expect(lines[0]).toContain('100 ublk devices, 10000 requests/s, sorted by id  (80 more)');
  expect(lines.some((line) => line.startsWith('ublkb60'))).toBe(true);
  expect(lines.at(-1)).toContain('(paused)');
  const gone = frame(devices, { ...choice, alone: 500 }, [], { columns: 100, rows: 24 });
  expect(gone[0]).toContain('/dev/ublkb500 is gone');
});

describe('a screen', () => {
  /** A terminal that takes what is written only when told. */
  function terminal() {
    const output = Object.assign(new PassThrough(), { columns: 80, rows: 3 });
    const input = Object.assign(new PassThrough(), {
      isTTY: true,
      isRaw: false,
      setRawMode(mode: boolean) {
        this.isRaw = mode;
        return this;
      },
    });
    const keys: Key[] = [];
    const screen = new Screen(output as never, input as never, (key) => keys.push(key));
    const taken = (): string => String((output.read() as Buffer | null) ?? '');
    taken();
    return { output, input, keys, screen, taken };
  }

  test('sends the lines that have changed, as many as fit', async () => {
    const { screen, taken } = terminal();
    screen.show(['a', 'b', 'c', 'd']);
    expect(taken()).toMatch(/a.*b.*c/);
    await new Promise(setImmediate);
    screen.show(['a', 'B']);
    const second = taken();
    expect(second).toContain('\x1b[2;1HB');
    expect(second).not.toContain('a');
    expect(second).toContain('\x1b[3;1H\x1b[J');
  });

  test('leaves frames out while the terminal has not taken the last one', async () => {
    const { screen, output, taken } = terminal();
    const written: (() => void)[] = [];
    output.write = ((_text: string, done: () => void) => written.push(done) > 0) as never;
    screen.show(['one']);
    screen.show(['two']);
    expect(written).toHaveLength(1);
    written[0]!();
    screen.show(['three']);
    expect(written).toHaveLength(2);
    expect(taken()).toBe('');
  });

  test('hears keys, draws anew at another size, and leaves the terminal as it was', async () => {
    const { screen, output, input, keys, taken } = terminal();
    expect(input.isRaw).toBe(true);
    input.write('q');
    await new Promise(setImmediate);
    expect(keys).toMatchObject([{ name: 'q' }]);
    screen.show(['a']);
    await new Promise(setImmediate);
    output.emit('resize');
    screen.show(['a']);
    expect(taken()).toContain('\x1b[1;1Ha');
    screen[Symbol.dispose]();
    expect(input.isRaw).toBe(false);
    expect(taken()).toContain('\x1b[?25h\x1b[?1049l');
    expect(output.listenerCount('resize')).toBe(0);
  });
});
