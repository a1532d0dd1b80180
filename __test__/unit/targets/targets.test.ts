import { resolve } from 'node:path';

import { describe, expect, onTestFinished, test, vi } from 'vitest';

import type { NbdTargetOptions } from '../../../src/index.ts';
import { inWords } from '../../../src/notes.ts';
import { targets, toNativeTarget, type Target } from '../../../src/targets/index.ts';
import { parseImage } from '../../../src/targets/rbd.ts';

describe('targets.null', () => {
  test('is frozen data', () => {
    const target = targets.null({ size: '1GiB' });
    expect(target).toEqual({ kind: 'null', size: '1GiB' });
    expect(Object.isFrozen(target)).toBe(true);
  });

  test('passes its size on in bytes', () => {
    expect(toNativeTarget(targets.null({ size: '4k' }))).toEqual({ kind: 'null', size: 4096 });
  });

  test('refuses a size of nothing', () => {
    expect(() => targets.null({ size: 0 })).toThrow(/size is 0/);
  });

  test('refuses options that are missing or misspelled', () => {
    expect(() => targets.null(undefined as never)).toThrow(/must be an object, not undefined/);
    expect(() => targets.null({ sise: 1 } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'size'?" }),
    );
  });
});

describe('targets.qcow2', () => {
  test('is frozen data with an absolute path for the addon', () => {
    const target = targets.qcow2('a.qcow2', { lock: false });
    expect(target).toEqual({ kind: 'qcow2', path: 'a.qcow2', lock: false });
    expect(Object.isFrozen(target)).toBe(true);
    const direct = 'auto';
    const path = resolve('a.qcow2');
    expect(toNativeTarget(target)).toEqual({ kind: 'qcow2', path, lock: false, direct });
  });

  test.each([
    [{ readOnly: true }, /has no 'readOnly'/],
    [{ direct: 1 }, /direct is 1/],
    [{ logicalBlockSize: 8192 }, /logicalBlockSize is 8192/],
  ])('refuses %o', (options, message) => {
    expect(() => targets.qcow2('a', options as never)).toThrow(message);
  });
});

describe('targets.nbd', () => {
  test('is frozen data, also of a URL', () => {
    const target = targets.nbd(new URL('nbd://host/a'), { reconnectTimeoutMs: 5 });
    expect(target).toEqual({ kind: 'nbd', uri: 'nbd://host/a', reconnectTimeoutMs: 5 });
    expect(Object.isFrozen(target)).toBe(true);
    const { kind, ...nbd } = target;
    expect(toNativeTarget(target)).toEqual({ kind, nbd });
  });

  test.each([
    ['nbd://host', {}],
    ['nbd://[::1]:10810/a/b', { readOnly: true }],
    ['nbd+unix:///?socket=/run/nbd.sock', { connectTimeoutMs: 1 }],
    ['nbd://host', { reconnectTimeoutMs: 0, answerTimeoutMs: 86_400_000 }],
    ['nbds://host/a', { tlsCertificates: '/etc/pki/ublk' }],
  ])('takes %s with %o', (uri, options) => {
    const { readOnly, ...limits } = options as NbdTargetOptions;
    const nbd = { uri, ...limits };
    expect(toNativeTarget(targets.nbd(uri, options))).toEqual({
      kind: 'nbd',
      nbd,
      ...(readOnly && { readOnly }),
    });
  });

  test.each([
    ['', {}, /is "", which is no address/],
    ['http://host/', {}, /is no address/],
    ['nbd:///export', {}, /is no address/],
    ['nbd+unix:///export', {}, /is no address/],
    ['nbd+unix:///export?socket=here', {}, /is no address/],
    ['nbds://host/', {}, /tlsCertificates is missing/],
    ['nbd://host/', { tlsCertificates: '/a' }, /tlsCertificates has no meaning without TLS/],
    ['nbds+unix:///?socket=/a', { tlsCertificates: '/a' }, /TLS for TCP only/],
    ['nbds://host/', { tlsCertificates: 7 }, /tlsCertificates/],
    [7, {}, /must be a text/],
    ['nbd://host', { reconnectTimeoutMs: -1 }, /reconnectTimeoutMs is -1/],
    ['nbd://host', { connectTimeoutMs: 0 }, /connectTimeoutMs is 0/],
    ['nbd://host', { answerTimeoutMs: 0 }, /answerTimeoutMs is 0/],
    ['nbd://host', { tls: true }, /has no 'tls'/],
  ])('refuses %s with %o', (uri, options, message) => {
    expect(() => targets.nbd(uri as never, options as never)).toThrow(message);
  });
});

describe('targets.rbd', () => {
  test('is frozen data, and paths are absolute for the addon', () => {
    const options = { pool: 'vms', conf: 'ceph.conf', lock: false, requestTimeoutMs: 5000 };
    const target = targets.rbd('vm1', options);
    expect(target).toEqual({ kind: 'rbd', image: 'vm1', ...options });
    expect(Object.isFrozen(target)).toBe(true);
    expect(toNativeTarget(target)).toEqual({
      kind: 'rbd',
      rbd: {
        image: 'vm1',
        pool: 'vms',
        conf: resolve('ceph.conf'),
        lock: false,
        requestTimeoutMs: 5000,
      },
    });
  });

  test('has the default pool, and the whole name for people', () => {
    expect(toNativeTarget(targets.rbd('a'))).toEqual({
      kind: 'rbd',
      rbd: { image: 'a', pool: 'rbd' },
    });
    const native = toNativeTarget(targets.rbd('a', { namespace: 'n', snapshot: 's' }));
    expect(inWords(native)).toBe('rbd:rbd/n/a@s');
  });

  test.each([
    ['', {}, /image is ""; it must be a name/],
    ['vms/vm1', {}, /image is "vms\/vm1"; it must be a name without/],
    [7, {}, /image is 7/],
    ['a', { pool: '' }, /pool is ""/],
    ['a', { snapshot: 'b@c' }, /snapshot is "b@c"/],
    ['a', { keyring: '' }, /keyring is ""/],
    ['a', { lock: 1 }, /lock is 1/],
    ['a', { connectTimeoutMs: 0 }, /connectTimeoutMs is 0/],
    ['a', { requestTimeoutMs: 999 }, /requestTimeoutMs is 999/],
    ['a', { key: 'secret' }, /has no 'key'/],
  ])('refuses %s with %o', (image, options, message) => {
    expect(() => targets.rbd(image as never, options as never)).toThrow(message);
  });

  test.each([
    ['vm1', { image: 'vm1' }],
    ['vms/vm1', { pool: 'vms', image: 'vm1' }],
    ['vms/a/vm1@s', { pool: 'vms', namespace: 'a', image: 'vm1', snapshot: 's' }],
  ])('reads the name %s as rbd does', (text, parts) => {
    expect(parseImage(text)).toEqual(parts);
  });

  test.each(['', '/vm1', 'a/b/c/d', 'vm1@', 'vm1@a@b'])('refuses the name %j', (text) => {
    expect(() => parseImage(text)).toThrow(/names no image/);
  });
});

describe('targets.file', () => {
  test('is frozen data that keeps the path as it was given', () => {
    const target = targets.file('disk.img', { readOnly: true });
    expect(target).toEqual({ kind: 'file', path: 'disk.img', readOnly: true });
    expect(Object.isFrozen(target)).toBe(true);
  });

  test('passes on an absolute path and its defaults', () => {
    expect(toNativeTarget(targets.file('disk.img'))).toEqual({
      kind: 'file',
      path: resolve('disk.img'),
      direct: 'auto',
      readOnly: false,
    });
  });

  test.each([
    [true, 'yes'],
    [false, 'no'],
    ['auto', 'auto'],
  ] as const)('direct: %s is passed on as %s', (direct, native) => {
    expect(toNativeTarget(targets.file('/a', { direct })).direct).toBe(native);
  });

  test.each([
    [{ direct: 'always' }, /direct is always/],
    [{ readOnly: 'yes' }, /readOnly is "yes"; it must be true or false/],
    [{ logicalBlockSize: 1000 }, /logicalBlockSize is 1000/],
    [{ size: '1KB' }, /two ways/],
  ])('refuses %o', (options, message) => {
    expect(() => targets.file('/a', options as never)).toThrow(message);
  });

  test.each(['', 'a\0b', 7, undefined])('refuses the path %o', (path) => {
    expect(() => targets.file(path as never)).toThrow(/path is .*; it must be the path of a file/);
  });

  test('suggests the option that was meant', () => {
    expect(() => targets.file('/a', { readonly: true } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'readOnly'?" }),
    );
  });
});

describe('a target', () => {
  test('may be written as plain data', () => {
    const target: Target = { kind: 'null', size: 512 };
    expect(toNativeTarget(target)).toEqual({ kind: 'null', size: 512 });
  });

  test.each([undefined, null, 'disk.img', {}])('%o is none', (target) => {
    expect(() => toNativeTarget(target as never)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('targets.file') as string }),
    );
  });

  test('of an unknown kind gets a suggestion', () => {
    expect(() => toNativeTarget({ kind: 'fiel' } as never)).toThrow(
      expect.objectContaining({ hint: "did you mean 'file'?" }),
    );
  });
});

describe('paths', () => {
  const file = { direct: 'auto', kind: 'file', readOnly: false };

  test('may be URLs of files', () => {
    const target = targets.file(new URL('file:///srv/a%20b.img'));
    expect(target).toEqual({ kind: 'file', path: '/srv/a b.img' });
    expect(toNativeTarget(target)).toEqual({ ...file, path: '/srv/a b.img' });
    const zones = {
      path: new URL('file:///srv/z'),
      state: new URL('file:///srv/s'),
      zoneSize: '1M',
    };
    expect(toNativeTarget(targets.zoned(zones))).toMatchObject({
      path: '/srv/z',
      zones: { state: '/srv/s' },
    });
    expect(() => targets.file(new URL('https://example.org/disk.img'))).toThrow(/URL must be that/);
  });

  test('that lost bytes on their way are not taken for files that are missing', () => {
    expect(() => targets.file('/srv/caf\uFFFD.img')).toThrow(/bytes that are no UTF-8/);
  });

  test('that are relative need a working directory', () => {
    vi.spyOn(process, 'cwd').mockImplementation(() => {
      throw new Error('ENOENT: no such file or directory, uv_cwd');
    });
    onTestFinished(() => void vi.restoreAllMocks());
    expect(() => targets.file('disk.img')).toThrow(/working directory has been deleted/);
    expect(toNativeTarget(targets.file('/srv/disk.img'))).toMatchObject({ path: '/srv/disk.img' });
  });
});

describe('what a target is to its clients', () => {
  test.each([
    (options: object) => targets.null({ size: '1MiB', ...options }),
    (options: object) => targets.linear([targets.null({ size: '1MiB' })], options),
    (options: object) => targets.striped([targets.null({ size: '1MiB' })], options),
    (options: object) => targets.delay(targets.null({ size: '1MiB' }), options),
  ])('is asked of every layer and null: %o', (make) => {
    const asked = { readOnly: true, logicalBlockSize: 4096 };
    expect(toNativeTarget(make(asked))).toMatchObject(asked);
    expect(() => make({ logicalBlockSize: 8192 })).toThrow(/must be 512, 1024, 2048 or 4096/);
    expect(() => make({ readOnly: 1 })).toThrow(/readOnly is 1/);
  });
});
