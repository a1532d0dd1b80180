import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import type { DeviceInfo } from '../../../src/info.ts';
import { inWords, readNote } from '../../../src/notes.ts';
import { targets, toNativeTarget } from '../../../src/targets/index.ts';

const device: DeviceInfo = {
  id: 1_000_000,
  path: '/dev/ublkb1000000',
  state: 'live',
  queues: 1,
  depth: 1,
  maxIoBytes: 4096,
  readOnly: false,
  serverPid: 7,
  ownerUid: process.getuid?.() ?? 0,
  ownerGid: 0,
  features: [],
};
const note = { pid: 7, since: '2026-11-28T00:00:00.000Z', serves: '/srv/disk.img' };

function folderWith(text: string): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-notes-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'ublkb1000000.json'), text);
  return [folder];
}

test("the note of the process that serves the device is its server's", () => {
  const folders = folderWith(JSON.stringify(note));
  expect(readNote(device, folders)).toEqual(note);
  expect(readNote({ ...device, serverPid: 8 }, folders)).toBeUndefined();
  const { serverPid: _, ...left } = device;
  expect(readNote({ ...left, state: 'quiesced' }, folders)).toEqual(note);
  expect(readNote({ ...device, id: 5_000_000 }, folders)).toBeUndefined();
});

test.each(['', '{', '[]', 'null', '{"pid":7}', '{"pid":7,"since":1,"serves":"x"}'])(
  'what is no note is unknown: %s',
  (text) => {
    expect(readNote(device, folderWith(text))).toBeUndefined();
  },
);

test('a link that leads nowhere is unknown', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-notes-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  symlinkSync('/nowhere', join(folder, 'ublkb1000000.json'));
  expect(readNote(device, [folder])).toBeUndefined();
});

test('targets are told in words', () => {
  const [a, b] = [targets.file('/a.img'), targets.null({ size: '1GiB' })];
  const words = (target: Parameters<typeof toNativeTarget>[0]) => inWords(toNativeTarget(target));
  expect(words(targets.striped([a, b]))).toBe('stripes over /a.img, null:1GiB');
  expect(words(targets.delay(targets.linear([a, b]), {}))).toBe('/a.img, then null:1GiB, late');
  expect(words(targets.zoned({ size: '4MiB', zoneSize: '1MiB' }))).toBe('zones in memory');
  const base = targets.file('/base.img');
  expect(words(targets.overlay(base, '/vm.layer'))).toBe('/vm.layer on /base.img');
  expect(inWords({ kind: 'handler' })).toBe('a handler');
});
