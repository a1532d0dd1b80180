import { chmod, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { execa } from 'execa';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';

import { createDevice, exportNbd, targets } from '../../src/index.ts';
import { newProgram } from '../nbd-tools.ts';
import { makeAuthority, type Authority } from './certificates.ts';
import { carries } from './filesystem.ts';
import { fioVerify } from './fio.ts';
import { randomImage, sparseImage, temporaryFolder } from './image.ts';
import { endLoad, startLoad } from './load.ts';
import { expectNoDevices, hasUblk, withUblk } from './machine.ts';
import {
  diesAndReturns,
  needServer,
  nbdkitAtPort,
  nbdkitWithTls,
  ticketServer,
} from './nbd-server.ts';

const MIB = 1024 * 1024;

// Only root has the module loaded where it is needed.
beforeAll(async () => {
  if (hasUblk) await execa('modprobe', ['tls']);
});

withUblk('an NBD target with TLS', () => {
  afterEach(expectNoDevices);

  test('carries data and a file system, with certificates on both sides', async (context) => {
    needServer(context, 'nbdkit');
    const authority = await makeAuthority();
    const server = await nbdkitWithTls(await authority.folder('server'), 'memory', '64M');
    const tlsCertificates = await authority.folder('client');
    await using device = await createDevice({
      target: targets.nbd(server.uri, { tlsCertificates }),
    });
    expect(device.size).toBe(64 * MIB);
    await fioVerify(device);
    expect(await carries(device, ['mkfs.ext4', '-qF'], ['fsck.ext4', '-fn'])).toBe(true);
    expect(device.stats().total.errors).toBe(0);
  });

  test('goes on when the server is killed and started again under a load', async (context) => {
    needServer(context, 'nbdkit');
    const authority = await makeAuthority();
    const image = sparseImage(64 * MIB);
    const server = await nbdkitWithTls(await authority.folder('server'), 'file', image);
    const tlsCertificates = await authority.folder('client');
    await using device = await createDevice({
      target: targets.nbd(server.uri, { tlsCertificates }),
    });
    const load = startLoad(device.path);
    await diesAndReturns(server, device);
    await endLoad(load);
    expect(device.stats().total.errors).toBe(0);
  });

  test('goes on after tickets, also between the parts of a reply', async () => {
    const authority = await makeAuthority();
    const server = await ticketServer(await authority.folder('server'));
    const tlsCertificates = await authority.folder('client');
    const target = targets.nbd(server.uri, { tlsCertificates, reconnectTimeoutMs: 5000 });
    const { path, bytes } = randomImage(MIB);
    {
      await using device = await createDevice({ target });
      await execa('dd', [`if=${path}`, `of=${device.path}`, 'bs=64k', 'oflag=direct']);
      // Replies that fit into the buffer, and longer ones, which are received in their place.
      for (const size of ['4k', '256k']) {
        const read = ['if=' + device.path, `bs=${size}`, 'iflag=direct'];
        const { stdout } = await execa('dd', read, { encoding: 'buffer' });
        expect(bytes.equals(Buffer.from(stdout))).toBe(true);
      }
      expect(device.stats().total.errors).toBe(0);
    }
    const lines = server.log().split('\n');
    expect(lines.filter((line) => line === 'connection')).toHaveLength(1);
    expect(lines.filter((line) => line === 'ticket').length).toBeGreaterThan(3 * 260);
  });

  test('refuses what is not proved, and leaves nothing', async (context) => {
    needServer(context, 'nbdkit');
    const [authority, other] = [await makeAuthority(), await makeAuthority()];
    const server = await nbdkitWithTls(await authority.folder('server'), 'memory', '1M');
    const plain = await nbdkitAtPort('memory', '1M');
    const ours = await authority.folder('client');
    const open = await authority.folder('client');
    await chmod(join(open, 'client-key.pem'), 0o644);
    const host = server.uri.replace('127.0.0.1', '127.0.0.2');
    for (const [uri, tlsCertificates, message] of [
      [server.uri, await other.folder('client'), 'UnknownIssuer'],
      [host, ours, 'certificate not valid for name "127.0.0.2"'],
      [
        server.uri,
        await authority.folder(),
        /Broken pipe|reset by peer|ends the connection|certificate/,
      ],
      [server.uri, temporaryFolder(), 'ca-cert.pem: No such file'],
      [server.uri, open, 'every user of this machine may read the key'],
      [plain.uri.replace('nbd:', 'nbds:'), ours, 'the server does not offer TLS'],
    ] as const) {
      const target = targets.nbd(uri, { tlsCertificates });
      await expect(createDevice({ target })).rejects.toThrow(message);
    }
    const target = targets.nbd(server.uri.replace('nbds:', 'nbd:'));
    await expect(createDevice({ target })).rejects.toMatchObject({
      code: 'ERR_UBLK_UNSUPPORTED',
      message: expect.stringContaining('the server serves the export only with TLS'),
    });
  });
});

describe.runIf(hasUblk)('an export with TLS', () => {
  let authority: Authority;

  /** The URI for libnbd, which needs the client's folder. */
  const by = (uri: string, folder: string): string => `${uri}?tls-certificates=${folder}`;

  test('is copied by nbdcopy, both ways, and told by nbdinfo', async () => {
    authority = await makeAuthority();
    const certificates = await authority.folder('server');
    const client = await authority.folder('client');
    const { path, bytes } = randomImage(16 * MIB);
    const copy = sparseImage(16 * MIB);
    const options = { tls: { certificates }, queues: 2 };
    await using from = await exportNbd(targets.file(path), { port: 0 }, options);
    await using to = await exportNbd(targets.file(copy), { port: 0 }, options);
    expect(from.uri).toMatch(/^nbds:\/\/127\.0\.0\.1:\d+\/$/);
    const { stdout } = await execa('nbdinfo', ['--json', by(from.uri, client)]);
    expect(JSON.parse(stdout)).toMatchObject({ TLS: true });
    const copies = ['--flush', '--connections=4', by(from.uri, client), by(to.uri, client)];
    await execa('nbdcopy', copies);
    expect(bytes.equals(await readFile(copy))).toBe(true);
  });

  test('has extended headers for a client that asks after TLS has begun', async (context) => {
    const nbdinfo = newProgram(context, 'nbdinfo');
    authority = await makeAuthority();
    const tls = { certificates: await authority.folder('server') };
    const { path } = randomImage(MIB);
    await using exported = await exportNbd(targets.file(path), { port: 0 }, { tls });
    const uri = by(exported.uri, await authority.folder('client'));
    expect((await execa(nbdinfo, [uri])).stdout).toMatch(/with TLS, using extended packets/);
    const copy = sparseImage(MIB);
    await execa(newProgram(context, 'nbdcopy'), [uri, copy]);
    await execa('cmp', [path, copy]);
  });

  test('lets in no client in the clear, and none that the authority does not know', async () => {
    authority = await makeAuthority();
    const certificates = await authority.folder('server');
    const target = targets.null({ size: '1MiB' });
    await using exported = await exportNbd(target, { port: 0 }, { tls: { certificates } });
    const { uri } = exported;
    const stranger = await (await makeAuthority()).folder('client');
    for (const [client, message] of [
      [uri.replace('nbds:', 'nbd:'), /Operation not supported/],
      [by(uri, await authority.folder()), /TLS fatal alert/],
      [by(uri, stranger), /certificate|TLS fatal alert/i],
    ] as const) {
      const { exitCode, stderr } = await execa('nbdinfo', [client], { reject: false });
      expect({ exitCode, stderr }).toMatchObject({ stderr: expect.stringMatching(message) });
      expect(exitCode).not.toBe(0);
    }
    const anyone = { certificates, verifyClients: false };
    await using open = await exportNbd(target, { port: 0 }, { tls: anyone });
    await execa('nbdinfo', [by(open.uri, await authority.folder())]);
    await execa('nbdinfo', [by(uri, await authority.folder('client'))]);
  });

  test('refuses certificates that it cannot use, before it listens', async () => {
    authority = await makeAuthority();
    const target = targets.null({ size: '1MiB' });
    for (const [certificates, message] of [
      [await authority.folder(), 'no server-cert.pem is there'],
      [temporaryFolder(), 'ca-cert.pem: No such file'],
    ] as const) {
      const exported = exportNbd(target, { port: 10_998 }, { tls: { certificates } });
      await expect(exported).rejects.toMatchObject({
        code: 'ERR_UBLK_INVALID_ARGUMENT',
        message: expect.stringContaining(message),
      });
    }
  });

  test('is a device again, over TLS', async () => {
    authority = await makeAuthority();
    const certificates = await authority.folder('server');
    const image = sparseImage(32 * MIB);
    const tls = { certificates };
    await using exported = await exportNbd(targets.file(image), { port: 0 }, { tls });
    const tlsCertificates = await authority.folder('client');
    const target = targets.nbd(exported.uri, { tlsCertificates });
    await using device = await createDevice({ target });
    await fioVerify(device, ['--size=16M']);
    expect(device.stats().total.errors).toBe(0);
  });
});
