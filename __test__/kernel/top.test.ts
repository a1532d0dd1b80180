import { execa, execaSync } from 'execa';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';

import { createDevice, targets } from '../../src/index.ts';
import { startLoad } from './load.ts';
import { expectNoDevices, withUblk } from './machine.ts';
import { sparseImage } from './image.ts';
import { CLI, ublk } from './server.ts';

const MIB = 1 << 20;
const soon = { timeout: 60_000, interval: 500 };

const tmux = (...args: string[]) => execaSync('tmux', ['-L', 'ublk-top', ...args]).stdout;
const hasTmux = (await execa('tmux', ['-V'], { reject: false })).exitCode === 0;

/** A device named `data` with a load on it, and an idle one. */
async function twoDevices(): Promise<void> {
  const data = await createDevice({ target: targets.file(sparseImage(32 * MIB)), name: 'data' });
  const idle = await createDevice({ target: targets.null({ size: MIB }) });
  const load = startLoad(data.path, '--rate_iops=100');
  onTestFinished(async () => {
    load.kill('SIGINT');
    await load;
    await Promise.all([data.close(), idle.close()]);
    await expectNoDevices();
  });
}

withUblk('ublk top', () => {
  afterEach(() => void execaSync('tmux', ['-L', 'ublk-top', 'kill-server'], { reject: false }));

  test('prints what each device does, as JSON and as a table', { timeout: 120_000 }, async () => {
    await twoDevices();
    const { stdout } = await ublk('top', '--json', '--count', '3', '--interval', '2');
    const looks = stdout.split('\n').map((line) => JSON.parse(line) as { devices: object[] });
    expect(looks).toHaveLength(3);
    const [busy, idle] = looks[2]!.devices as { name?: string; rates: Record<string, number> }[];
    expect(busy).toMatchObject({ name: 'data', state: 'live', serverPid: process.pid });
    expect(busy?.rates['readsPerSecond']).toBeGreaterThan(1);
    expect(busy?.rates['writeBytesPerSecond']).toBeGreaterThan(4096);
    expect(busy?.rates['writeMs']).toBeGreaterThanOrEqual(0);
    expect(idle?.rates).toMatchObject({ readsPerSecond: 0, busy: 0 });

    const table = await ublk('top', '--plain', '--count', '1', '--sort', 'id');
    expect(table.stdout).toMatch(/^ublkb0 +data /m);
    expect(table.stdout).toMatch(/^ublkb1 +- +0 +0 +0 +0 /m);
    expect((await ublk('top', '9')).stderr).toContain('ERR_UBLK_NO_DEVICE');
  });

  test.runIf(hasTmux)(
    'fills a terminal, and leaves it as it was',
    { timeout: 240_000 },
    async () => {
      await twoDevices();
      tmux('new-session', '-d', '-x', '110', '-y', '24', 'sh');
      const pane = (): string => tmux('capture-pane', '-p');
      const keys = (...names: string[]): void => void tmux('send-keys', ...names);
      keys(`echo before; node ${CLI} top`, 'Enter');
      await vi.waitFor(
        () => expect(pane()).toMatch(/2 ublk devices, [1-9].* sorted by busy/),
        soon,
      );
      expect(pane()).toMatch(/^ublkb0 +data .*\nublkb1/m);
      expect(pane()).not.toContain('before');
      keys('s');
      await vi.waitFor(() => expect(pane()).toContain('sorted by iops'), soon);
      keys('Enter');
      await vi.waitFor(() => expect(pane()).toMatch(/in flight \d+ of 128 \[[# ]+\]/), soon);
      await vi.waitFor(() => expect(pane()).toContain('used by'), soon);
      tmux('resize-window', '-x', '60', '-y', '12');
      keys('Escape');
      await vi.waitFor(() => expect(pane()).toMatch(/^ublkb1/m), soon);
      keys('q');
      await vi.waitFor(() => expect(pane()).toContain('before'), soon);
      expect(pane()).not.toContain('sorted by');
    },
  );
});
