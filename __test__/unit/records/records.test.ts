import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { handlerModule } from '../../../src/handler/module.ts';
import { bootId } from '../../../src/records/identity.ts';
import { recordOptions, recordTarget } from '../../../src/records/plain.ts';
import { readRecordText, wholeTarget, writeRecordText } from '../../../src/records/record.ts';
import type { DeviceRecord } from '../../../src/records/record.ts';
import { findRecord, listRecords, removeRecord, writeRecord } from '../../../src/records/store.ts';
import { targets } from '../../../src/targets/index.ts';

const target = targets.striped([targets.file('/a.img', { size: 4096n }), targets.file('/b.img')]);
const record: DeviceRecord = {
  boot: bootId(),
  instance: '1234',
  id: 7,
  name: 'data',
  pid: process.pid,
  since: '2026-11-29T00:00:00.000Z',
  target: recordTarget(target),
  options: recordOptions({ target, queues: 2, recovery: 'reissue', maxIoBytes: '64k' }),
  told: {
    queues: 2,
    depth: 128,
    maxIoBytes: 65_536,
    size: 8192,
    logicalBlockSize: 512,
    readOnly: false,
  },
};

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-records-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

function bad(message: string): object {
  return expect.objectContaining({
    code: 'ERR_UBLK_BAD_RECORD',
    message: expect.stringContaining(message) as string,
    hint: expect.any(String) as string,
  }) as object;
}

/** What `action` throws. */
function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('the text of a record', () => {
  test('is read as it was written', () => {
    expect(readRecordText(writeRecordText(record), '/x')).toEqual(record);
  });

  test('cut at any byte is refused by name', () => {
    const bytes = Buffer.from(writeRecordText(record));
    for (let length = 0; length < bytes.length; length += 1) {
      const cut = bytes.subarray(0, length).toString();
      expect(thrownBy(() => readRecordText(cut, '/run/ublk/7.json'))).toEqual(
        bad('/run/ublk/7.json is half-written'),
      );
    }
  });

  test('is refused when any one field is missing or of another type', () => {
    const needed = Object.keys(record).filter((key) => key !== 'name') as (keyof DeviceRecord)[];
    for (const key of needed) {
      for (const value of [undefined, null, [], { colour: 'red' }]) {
        const text = writeRecordText({ ...record, [key]: value });
        expect(thrownBy(() => readRecordText(text, '/x'))).toEqual(bad('/x is damaged'));
      }
    }
  });

  test.each<[string, string, string]>([
    ['a later version', writeRecordText(record).replace('"version":1', '"version":2'), 'version 2'],
    ['no version', writeRecordText(record).replace('"version":1,', ''), 'of version undefined'],
    ['another program', '{"pid":7}\n', 'is not a record of ublk'],
    ['no object', '[]\n', 'half-written'],
    ['null', 'null\n', 'half-written'],
    ['text', 'ublk layout 1\n', 'half-written'],
    ['an unknown key', writeRecordText({ ...record, x: 1 } as never), "has no 'x'"],
    ['a kind of a later version', withTarget({ kind: 'raid' }), "no target of kind 'raid'"],
    ['an option of a later version', withOptions({ flying: true }), "has no 'flying'"],
    ['a bad name', writeRecordText({ ...record, name: '../x' }), 'name is "../x"'],
  ])('of %s is refused', (_, text, message) => {
    expect(thrownBy(() => readRecordText(text, '/x'))).toEqual(bad(message));
  });

  function withTarget(other: object): string {
    return writeRecordText({ ...record, target: other as never });
  }

  function withOptions(other: object): string {
    return writeRecordText({ ...record, options: other });
  }
});

describe('a recorded target', () => {
  test('is plain, absolute, and makes no file anew', () => {
    const zoned = targets.zoned({ path: 'z.img', zoneSize: '64KiB', create: true });
    const integrity = { path: 'meta', create: true };
    expect(recordTarget(zoned)).toEqual({
      kind: 'zoned',
      path: join(process.cwd(), 'z.img'),
      zoneSize: '64KiB',
    });
    const once = { create: true, loseUnflushed: true };
    const disk = targets.overlay(targets.file('/b.img'), '/a.layer', once);
    expect(recordTarget(disk)).toEqual({
      kind: 'overlay',
      base: { kind: 'file', path: '/b.img' },
      path: '/a.layer',
    });
    expect(recordTarget(targets.file('/a', { integrity }))).toEqual({
      kind: 'file',
      path: '/a',
      integrity: { path: join(process.cwd(), 'meta') },
    });
    const tlsCertificates = new URL('file:///etc/pki/ublk');
    for (const folder of [tlsCertificates, 'pki']) {
      expect(recordTarget(targets.nbd('nbds://host/', { tlsCertificates: folder }))).toEqual({
        kind: 'nbd',
        uri: 'nbds://host/',
        tlsCertificates: folder === 'pki' ? join(process.cwd(), 'pki') : '/etc/pki/ublk',
      });
    }
    expect(wholeTarget(record.target)).toEqual(record.target);
  });

  test('that cannot be written down says what is missing, and nothing more', () => {
    const read = (): void => {};
    const data = { password: 'secret' };
    const cases = [
      recordTarget({ size: 4096, read }),
      recordTarget(handlerModule('/srv/disk.js', { data })),
      recordTarget(handlerModule('file:///srv/disk.js?token=secret')),
      recordTarget(handlerModule('data:text/javascript,secret')),
    ];
    expect(cases.map(({ needs }) => needs)).toEqual([
      'its JavaScript functions',
      'the data of its module',
      "its module's URL",
      "its module's URL",
    ]);
    expect(JSON.stringify(cases)).not.toContain('secret');
    for (const one of cases) expect(wholeTarget(one)).toBeUndefined();
    const module = handlerModule('/srv/disk.js', { workers: 2 });
    expect(wholeTarget(recordTarget(module))).toEqual(module);
  });
});

describe('the folder of records', () => {
  test('has a new record in the place of the old one, for root alone, and no draft', () => {
    const folder = join(temporaryFolder(), 'ublk');
    writeRecord(record, folder);
    writeFileSync(join(folder, '7.json.draft'), 'of a server that was killed');
    writeRecord({ ...record, name: 'other' }, folder);
    expect(findRecord(7, folder)).toEqual({ ...record, name: 'other' });
    expect(readdirSync(folder)).toEqual(['7.json']);
    expect(findRecord(8, folder)).toBeUndefined();
  });

  test.each<[string, (path: string) => void, string]>([
    [
      'half-written',
      (path) => writeFileSync(path, writeRecordText(record).slice(0, 50)),
      'half-written',
    ],
    ['foreign', (path) => writeFileSync(path, '{}\n'), 'is not a record of ublk'],
    [
      'of a later version',
      (path) => writeFileSync(path, '{"format":"ublk device record","version":9}\n'),
      'version 9',
    ],
    [
      'of another boot',
      (path) => writeFileSync(path, writeRecordText({ ...record, boot: 'x' })),
      'another boot',
    ],
    [
      'of another device',
      (path) => writeFileSync(path, writeRecordText({ ...record, id: 8 })),
      'of device 8',
    ],
    ['a link', (path) => symlinkSync('/etc/hostname', path), 'cannot be read'],
    [
      'writable by others',
      (path) => {
        writeFileSync(path, writeRecordText(record));
        chmodSync(path, 0o666);
      },
      'can be changed by others',
    ],
  ])('a record that is %s is refused, not replaced, and not removed', (_, make, message) => {
    const folder = temporaryFolder();
    const path = join(folder, '7.json');
    make(path);
    const before = readFileSync(path, 'utf8');
    expect(thrownBy(() => findRecord(7, folder))).toEqual(bad(message));
    expect(thrownBy(() => writeRecord(record, folder))).toEqual(bad(message));
    removeRecord(7, record.instance, folder);
    expect(listRecords(folder)).toEqual([{ id: 7, path, problem: bad(message) }]);
    expect(readFileSync(path, 'utf8')).toBe(before);
  });

  test('a record is removed for its own device only', () => {
    const folder = temporaryFolder();
    writeRecord(record, folder);
    removeRecord(7, '1', folder);
    expect(existsSync(join(folder, '7.json'))).toBe(true);
    removeRecord(7, record.instance, folder);
    expect(listRecords(folder)).toEqual([]);
  });
});
