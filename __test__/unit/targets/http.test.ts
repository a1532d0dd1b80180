import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { targets, type HttpTargetOptions } from '../../../src/index.ts';
import { simulate } from '../../../src/testing/index.ts';
import { toNativeTarget } from '../../../src/targets/index.ts';

const image = Buffer.from(Array.from({ length: 96 << 10 }, (_, at) => (at * 31 + (at >> 9)) & 255));

describe('targets.http', () => {
  test('is frozen data', () => {
    const target = targets.http(new URL('https://host/a?sig=1'), { connections: 2 });
    expect(target).toEqual({ kind: 'http', url: 'https://host/a?sig=1', connections: 2 });
    expect(Object.isFrozen(target)).toBe(true);
    expect(toNativeTarget(target)).toEqual({
      kind: 'http',
      http: { url: 'https://host/a?sig=1', connections: 2 },
    });
  });

  test.each([
    ['nbd://host/a', {}, /is "nbd:\/\/host\/a", which is no address/],
    ['host/a?secret', {}, /is "host\/a", which/],
    ['http://me:word@host/a', {}, /^url has a user or a password/],
    [7, {}, /must be a text/],
    ['http://host/', { connections: 0 }, /connections is 0/],
    ['http://host/', { answerTimeoutMs: 0 }, /answerTimeoutMs is 0/],
    ['http://host/', { retryTimeoutMs: -1 }, /retryTimeoutMs is -1/],
    ['http://host/', { logicalBlockSize: 8192 }, /logicalBlockSize is 8192/],
    ['http://host/', { readOnly: true }, /has no 'readOnly'/],
  ])('refuses %o with %o', (url, options, message) => {
    expect(() => targets.http(url as never, options as never)).toThrow(message);
  });
});

describe('a disk on a web server', () => {
  let server: Server;
  let url: string;
  let etag: string;
  /** Requests until the server answers again. */
  let refusals: number;

  beforeEach(async () => {
    [etag, refusals] = ['"1"', 0];
    server = createServer(({ headers }, response) => {
      if (refusals > 0) {
        refusals -= 1;
        response.writeHead(503).end();
        return;
      }
      const [from = 0, to = 0] = (headers.range ?? '')
        .slice('bytes='.length)
        .split('-')
        .map(Number);
      response.setHeader('etag', etag);
      response.setHeader('content-range', `bytes ${from}-${to}/${image.length}`);
      response.writeHead(206).end(image.subarray(from, to + 1));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.img`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  const open = (options: HttpTargetOptions = {}) => simulate(targets.http(url, options));

  test('holds what the server has, and refuses writes', async () => {
    await using disk = await open();
    const reads = [0, 1, 2, 3].map((at) => disk.read(at * 512, 8192 + at * 512));
    for (const [at, read] of (await Promise.all(reads)).entries()) {
      expect(read.equals(image.subarray(at * 512, at * 1024 + 8192))).toBe(true);
    }
    expect((await disk.read(0, image.length)).equals(image)).toBe(true);
    await expect(disk.write(0, Buffer.alloc(512))).rejects.toThrow('EPERM');
  });

  test('goes on when the server is back, and fails reads of a server that stays away', async () => {
    await using disk = await open({ retryTimeoutMs: 1000 });
    refusals = 2;
    expect((await disk.read(512, 512)).equals(image.subarray(512, 1024))).toBe(true);
    refusals = Infinity;
    await expect(disk.read(512, 512)).rejects.toThrow('EIO');
    refusals = 0;
    expect((await disk.read(512, 512)).equals(image.subarray(512, 1024))).toBe(true);
  });

  test('fails reads of a file that has changed', async () => {
    await using disk = await open();
    etag = '"2"';
    await expect(disk.read(0, 512)).rejects.toThrow('EIO');
    etag = '"1"';
    expect((await disk.read(0, 512)).equals(image.subarray(0, 512))).toBe(true);
  });

  test('is the base of an overlay, which takes the writes', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ublk-http-'));
    try {
      const layer = join(folder, 'vm.layer');
      await using disk = await simulate(
        targets.overlay(targets.http(url), layer, { create: true }),
      );
      await disk.write(4096, Buffer.alloc(4096, 7));
      const expected = Buffer.from(image);
      expected.fill(7, 4096, 8192);
      expect((await disk.read(0, image.length)).equals(expected)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
