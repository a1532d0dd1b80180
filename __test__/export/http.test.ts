import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { targets, type HttpTargetOptions } from '../../src/index.ts';
import { simulate } from '../../src/testing/index.ts';
import { makeAuthority } from '../kernel/certificates.ts';

const image = Buffer.alloc(8192, 5);

test('a disk on a web server with https needs a server that can be trusted', async () => {
  const folder = await (await makeAuthority()).folder('server');
  const stranger = await (await makeAuthority()).folder();
  const [cert, key] = ['cert', 'key'].map((name) =>
    readFileSync(join(folder, `server-${name}.pem`)),
  );
  const server = createServer({ cert, key }, ({ headers }, response) => {
    const [from = 0, to = 0] = (headers.range ?? '').slice('bytes='.length).split('-').map(Number);
    response.setHeader('etag', '"1"');
    response.setHeader('content-range', `bytes ${from}-${to}/${image.length}`);
    response.writeHead(206).end(image.subarray(from, to + 1));
  });
  server.listen(0);
  await once(server, 'listening');
  const port = String((server.address() as AddressInfo).port);
  const open = async (host: string, options: HttpTargetOptions) =>
    await simulate(targets.http(`https://${host}:${port}/disk.img`, options));
  try {
    const authorities = join(folder, 'ca-cert.pem');
    {
      await using disk = await open('localhost', { authorities });
      expect((await disk.read(0, image.length)).equals(image)).toBe(true);
    }
    for (const [host, options, message] of [
      ['localhost', {}, 'UnknownIssuer'],
      ['localhost', { authorities: join(stranger, 'ca-cert.pem') }, 'UnknownIssuer'],
      ['127.0.0.2', { authorities }, 'not valid for name "127.0.0.2"'],
    ] as const) {
      await expect(open(host, options)).rejects.toMatchObject({
        code: 'ERR_UBLK_BAD_BACKEND',
        message: expect.stringContaining(message),
        hint: expect.stringContaining('authorities'),
      });
    }
    await expect(
      open('localhost', { authorities: join(folder, 'server-key.pem') }),
    ).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: expect.stringContaining('holds no certificate'),
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
