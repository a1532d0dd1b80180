import { afterEach, expect, test } from 'vitest';

import { run } from './handler-program.ts';
import { expectNoDevices, withUblk } from './machine.ts';

/** `UBLK_CYCLES` asks for another number; twice as many must leave nothing more behind. */
const CYCLES = Number(process.env.UBLK_CYCLES ?? 40);

/** What a process holds after so many devices that were closed while clients were at work. */
const PROGRAM = `
  import { open } from 'node:fs/promises';
  import { readdirSync } from 'node:fs';
  const left = () => ({
    threads: readdirSync('/proc/self/task').length,
    files: readdirSync('/proc/self/fd').length,
  });
  const late = {
    ...handler,
    async read(request) { await sleep(Math.random() * 20); handler.read(request); },
    async write(request) { await sleep(Math.random() * 20); await handler.write(request); },
  };
  const block = Buffer.alloc(4096, 7);
  const cycle = async (target) => {
    const device = await createDevice({ target, queues: 2 });
    const disk = await open(device.path, 'r+');
    let ended = 0;
    const io = async (at) => {
      await disk.write(block, 0, 4096, at * 4096);
      await disk.datasync();
      await disk.read(Buffer.alloc(4096), 0, 4096, at * 4096 + 65536);
    };
    const load = Array.from({ length: 4 }, (_, at) => io(at).catch(() => {}).then(() => ended++));
    await sleep(Math.random() * 30);
    // The kernel keeps what is left of a device for as long as somebody has it open.
    const closed = device.close();
    await Promise.all(load);
    await disk.close().catch(() => {});
    await closed;
  };
  const cycles = async (count) => {
    for (let index = 0; index < count; index += 1) await cycle(index % 2 ? late : handler);
    // What is collected lets go in its own time, and so do threads.
    let now = left();
    for (let calm = 0; calm < 5; ) {
      globalThis.gc();
      await sleep(300);
      const then = now;
      now = left();
      calm = now.threads === then.threads && now.files === then.files ? calm + 1 : 0;
    }
    return { ...now, memory: process.memoryUsage.rss() };
  };
`;

withUblk('a handler', () => {
  afterEach(expectNoDevices);

  test('that is closed with requests in flight, again and again, leaves nothing', async () => {
    const program = `${PROGRAM}
      const before = await cycles(${Math.ceil(CYCLES / 4)});
      const after = await cycles(${CYCLES});
      console.log(JSON.stringify({ before, after, devices: (await listDevices()).length }));
    `;
    const { exitCode, stdout, stderr } = await run(program, { nodeOptions: ['--expose-gc'] });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    const { before, after, devices } = JSON.parse(stdout);
    expect(devices).toBe(0);
    expect(after).toMatchObject({ threads: before.threads, files: before.files });
    // As much as one device has, at most.
    expect(after.memory).toBeLessThan(before.memory + 64 * 1024 * 1024);
  }, 600_000);
});
