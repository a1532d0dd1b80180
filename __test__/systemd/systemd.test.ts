import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type VmOptions, runInVm } from '../../vm/index.ts';

const GUEST = fileURLToPath(new URL('guest.sh', import.meta.url));
const CYCLES = Number(process.env['UBLK_CYCLES'] ?? 1);

/** What systemd prints when the end of the machine goes wrong, and the kernel when a task hangs. */
const TROUBLE =
  /FAILED|Failed unmounting|Timed out|blocked for more than|I\/O error|EXT4-fs error/i;

describe('a machine with systemd and a ublk disk in fstab', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ublk-systemd-'));
  const [root, disk] = [join(folder, 'root'), join(folder, 'disk.img')];

  /** Boots, runs a step of `guest.sh`, and ends the machine; answers what the step has said. */
  async function boot(step: string[], options: Partial<VmOptions> = {}): Promise<string> {
    const stdout = new PassThrough();
    const said = text(stdout);
    const run = { disk, timeout: 600, ...options, command: ['sh', GUEST, ...step], stdout };
    const ended = await runInVm(run)
      .finally(() => stdout.end())
      .catch((error: Error) => error);
    const lines = await said;
    if (ended instanceof Error) throw new Error(`${ended.message}\n${step[0]} has said:\n${lines}`);
    const { status, console } = ended;
    if (status !== 0) throw new Error(`${step[0]} ended with status ${status}:\n${lines}`);
    expect(console).not.toMatch(TROUBLE);
    return lines;
  }
  const bootSystemd = (step: string): Promise<string> => boot([step], { init: 'systemd', root });

  beforeAll(async () => {
    mkdirSync(root);
    const image = openSync(disk, 'w');
    ftruncateSync(image, 2 ** 30);
    closeSync(image);
    await boot(['prepare', root], { shares: [root] });
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each(Array.from({ length: CYCLES }, (_, at) => at + 1))(
    'boots, mounts, survives the death of the server, shuts down in order, and a reset, cycle %i',
    async (cycle) => {
      const life = await bootSystemd('life');
      expect(life).toContain('guest: status: 1 device served\n');
      // After a reset the file system has a journal to replay, and not after an end in order.
      expect(life).toContain(`guest: replayed journals: ${cycle === 1 ? 0 : 1}\n`);
      expect(life).toContain('guest: upgraded: 1 device served\n');
      expect(life).toContain('guest: fsck: clean\n');
      expect(life).toContain('guest: life: done\n');
      console.log(/back after \d+ ms/.exec(life)?.[0]);
      const after = await bootSystemd('reset');
      expect(after).toContain('guest: replayed journals: 0\n');
      expect(after).toContain('guest: reset: done\n');
    },
  );

  test('leaves nothing behind', async () => {
    const said = await bootSystemd('look');
    expect(said).toContain('guest: replayed journals: 1\n');
    expect(said).toContain('guest: left: "state":"quiesced" \n');
    expect(said).toContain('guest: orphans: [], records: 0, names: 0\n');
  });
});
