import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';

import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

import { exportNbd, targets, type NbdExport } from '../../src/index.ts';
import { descriptors, folder, obstacle, sparse } from './machine.ts';

const MIB = 1 << 20;
/** How long hostile clients go on: minutes where the variable says so. */
const SECONDS = Number(process.env.UBLK_GARBAGE_SECONDS ?? '4');

const OPTION_MAGIC = Buffer.from('IHAVEOPT');
const REQUEST_MAGIC = 0x25609513;
const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
const CHOICES = 9;
const PAYLOAD_LEN = 1 << 5;
/** The choice of `base:allocation`, of the export without a name. */
const CONTEXT = Buffer.from(`\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation`, 'latin1');

/** The option that asks for replies of a kind; 0: none. */
type Headers = 0 | 8 | 11;

/** Connections with bytes that make no sense: before, in, and after the negotiation. */
describe.skipIf(obstacle)('garbage of hostile clients', () => {
  test.each([1, 3])(
    'ends no export of %i queues, holds up no other client, and leaves nothing',
    async (queues) => {
      await using files = await folder();
      const image = await sparse(files.at('image'), 16 * MIB);
      const socket = files.at('socket');
      await using exported = await exportNbd(targets.file(image), { socket }, { queues });
      await verified(exported, 1);
      const before = await descriptors();
      const end = Date.now() + (SECONDS * 1000) / 2;
      let rounds = 0;
      while (Date.now() < end) {
        await Promise.all(Array.from({ length: 8 }, () => attack(socket)));
        rounds += 1;
        if (rounds % 20 === 0) await verified(exported, rounds % 250);
      }
      expect(rounds).toBeGreaterThan(0);
      await verified(exported, 251);
      while ((await descriptors()).length > before.length) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    SECONDS * 1000 + 60_000,
  );

  test('more silent clients than may negotiate keep nobody out', async () => {
    await using files = await folder();
    const socket = files.at('socket');
    await using exported = await exportNbd(targets.null({ size: '1MiB' }), { socket });
    const silent = Array.from({ length: 60 }, () => createConnection(socket).on('error', () => {}));
    // Those over the limit end without a word.
    await Promise.all(silent.map((one) => Promise.race([once(one, 'data'), once(one, 'close')])));
    const { stdout } = await execa('nbdinfo', ['--size', exported.uri]);
    expect(stdout).toBe(String(MIB));
    silent.forEach((one) => one.destroy());
  });
});

async function verified(exported: NbdExport, byte: number): Promise<void> {
  const commands = [`write -P ${byte} 1M 1M`, `read -P ${byte} 1M 1M`];
  const words = commands.flatMap((command) => ['-c', command]);
  const { all } = await execa('qemu-io', ['-f', 'raw', ...words, exported.uri], { all: true });
  expect(all).not.toMatch(/failed|error/i);
}

/** One connection, which writes garbage of a kind chosen at random, and then ends in some way. */
async function attack(path: string): Promise<void> {
  const socket = createConnection(path);
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.resume();
  for (let part = 0; part < 6 && !socket.destroyed; part += 1) {
    socket.write(garbage(randomInt(CHOICES)));
    if (by(4)) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  end(socket);
  await closed;
}

function end(socket: Socket): void {
  if (by(3)) socket.destroy();
  else {
    socket.end();
    setTimeout(() => socket.destroy(), 50);
  }
}

function garbage(kind: number): Buffer {
  const begun = Buffer.from([0, 0, 0, 3]);
  switch (kind) {
    case 0:
      return randomBytes(randomInt(1, 400));
    case 1:
      return begun;
    case 2:
      return Buffer.concat([begun, option(randomInt(14), randomBytes(randomInt(64)))]);
    case 3: // A length without the data.
      return Buffer.concat([OPTION_MAGIC, word(7), word(0xffff)]);
    case 4:
      return go(headers());
    case 5: {
      const [kind, count] = [headers(), randomInt(1, 200)];
      const requests = Array.from({ length: count }, () => request(kind, randomInt(9)));
      return Buffer.concat([go(kind), ...requests]);
    }
    case 6: {
      // A write with a part of the data.
      const kind = headers();
      const write = request(kind, 1, 65536, 12 * MIB);
      return Buffer.concat([go(kind), write, randomBytes(randomInt(65536))]);
    }
    case 7: {
      // Requests of a kind that was not agreed on.
      const requests = Array.from({ length: 9 }, () => request(headers(), randomInt(9)));
      return Buffer.concat([go(headers()), ...requests]);
    }
    default: {
      const kind = headers();
      const both = [request(kind, 0, 4 * MIB), request(kind, 1, 4096, 8 * MIB)];
      return Buffer.concat([go(kind), ...both, randomBytes(9000)]);
    }
  }
}

function headers(): Headers {
  return ([0, 8, 11] as const)[randomInt(3)] ?? 0;
}

/** A whole negotiation. */
function go(kind: Headers): Buffer {
  const asked = kind === 0 ? Buffer.alloc(0) : option(kind, Buffer.alloc(0));
  const context = by(2) ? option(10, CONTEXT) : Buffer.alloc(0);
  return Buffer.concat([Buffer.from([0, 0, 0, 3]), asked, context, option(7, Buffer.alloc(6))]);
}

function option(number: number, data: Buffer): Buffer {
  return Buffer.concat([OPTION_MAGIC, word(number), word(data.length), data]);
}

/** A request outside the second MiB, which other clients verify. */
function request(kind: Headers, command: number, length = randomInt(1 << 20), at?: number): Buffer {
  const changes = [1, 4, 6].includes(command);
  const offset = at ?? (changes ? 4 * MIB + randomInt(4096) * 512 : randomInt(2 ** 40));
  const whole = length & (by(2) ? ~511 : ~0);
  const header = Buffer.alloc(kind === 11 ? 32 : 28);
  header.writeUInt32BE(kind === 11 ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
  const carries = kind === 11 && command === 1 && by(2) ? PAYLOAD_LEN : 0;
  header.writeUInt16BE(by(4) ? randomInt(64) : carries, 4);
  header.writeUInt16BE(command, 6);
  header.writeBigUInt64BE(BigInt(randomInt(2 ** 32)), 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  if (kind === 11) header.writeBigUInt64BE(BigInt(by(8) ? whole * 2 ** 24 : whole), 24);
  else header.writeUInt32BE(whole, 24);
  return header;
}

/** By chance, once in so many times. */
function by(times: number): boolean {
  return randomInt(times) === 0;
}

function word(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number >>> 0);
  return bytes;
}
