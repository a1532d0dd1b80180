import { expect, test } from 'vitest';

import { exportNbd, targets, UblkErrorCode } from '../../../src/index.ts';

const target = targets.null({ size: '1MiB' });

test.each([
  [{ socket: '/tmp/a', port: 1 }, {}, 'socket and port exclude each other'],
  [{ socket: '/tmp/a', host: 'localhost' }, {}, 'socket and host exclude each other'],
  [{ port: 65536 }, {}, 'port is 65536; it must be a whole number from 0 to 65535'],
  [{ host: '' }, {}, 'host is no name and no address of this machine'],
  [{ path: '/tmp/a' }, {}, "the address of exportNbd() has no 'path'"],
  ['/tmp/a', {}, 'the address of exportNbd() must be an object, not "/tmp/a"'],
  [{ port: 0 }, { name: 7 }, 'name is no string'],
  [{ port: 0 }, { name: 'x'.repeat(4097) }, 'name has 4097 bytes'],
  [{ port: 0 }, { connections: 0 }, 'connections is 0'],
  [{ port: 0 }, { readOnly: 'yes' }, 'readOnly is "yes"'],
  [{ socket: '/tmp/a' }, { tls: { certificates: '/a' } }, 'tls and socket exclude each other'],
  [{ port: 0 }, { tls: { folder: '/a' } }, "tls has no 'folder'"],
  [{ port: 0 }, { tls: {} }, 'tls.certificates'],
  [{ port: 0 }, { tls: { certificates: '/a', verifyClients: 1 } }, 'tls.verifyClients is 1'],
  [{ port: 0 }, { recovery: 'queue' }, "the options of exportNbd() has no 'recovery'"],
  [{ port: 0 }, { maxIoBytes: 1000 }, 'maxIoBytes is 1000'],
])('an export at %j with %j is refused before anything is touched', async (at, how, message) => {
  const made = exportNbd(target, at as never, how as never);
  await expect(made).rejects.toMatchObject({ code: UblkErrorCode.InvalidArgument });
  await expect(exportNbd(target, at as never, how as never)).rejects.toThrow(message);
});
