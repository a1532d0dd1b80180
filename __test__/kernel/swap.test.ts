import { createInterface } from 'node:readline';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';

import { execa } from 'execa';
import { afterEach, expect, test, vi, type TestContext } from 'vitest';

import { createDevice, handler, targets } from '../../src/index.ts';
import { expectNoDevices, isTestMachine, withUblk } from './machine.ts';
import { makeNullDisk, removeNullDisk } from './null-disk.ts';
import { CLI, ublk } from './server.ts';

const ROOT = '/sys/fs/cgroup';
const GROUP = `${ROOT}/ublk-swap`;
const MIB = 1 << 20;

/** A value of `/proc/PID/status`, in bytes. */
function statusOf(pid: number, key: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
}

/** `ublk` in a group of its own, whose memory can be taken from it. */
async function serveInGroup(...args: string[]) {
  const script = 'echo $$ > "$0/cgroup.procs" && exec "$@"';
  const server = execa('sh', ['-c', script, GROUP, 'node', CLI, ...args], { reject: false });
  for await (const line of createInterface({ input: server.stdout })) return { server, path: line };
  throw new Error((await server).stderr);
}

/** Takes as much of the group's memory as the kernel can, into swap. */
async function takeMemory(): Promise<void> {
  // The kernel answers EAGAIN when it could not take all that it was asked for.
  await writeFile(`${GROUP}/memory.reclaim`, '1G swappiness=max').catch(() => {});
}

function needReclaim(context: TestContext): void {
  if (isTestMachine && existsSync(`${ROOT}/memory.reclaim`)) return;
  context.skip(
    'the test takes memory with cgroups, and makes a swap area, of the test machine only',
  );
}

withUblk('a disk for swap', () => {
  afterEach(expectNoDevices);

  test.for([
    ['copy', 'per-io'],
    ['auto', 'per-io'],
    ['auto', 'batch'],
  ] as const)(
    'serves on when its own server is swapped out to it (%s, %s)',
    { timeout: 300_000 },
    async ([buffers, exchange], context) => {
      needReclaim(context);
      writeFileSync(`${ROOT}/cgroup.subtree_control`, '+memory');
      mkdirSync(GROUP);
      const disk = await makeNullDisk('nullswap', {});
      const { server, path } = await serveInGroup(
        'add',
        'file',
        disk,
        '--lock-memory',
        '--buffers',
        buffers,
        '--exchange',
        exchange,
      );
      await execa('mkswap', [path]);
      await execa('swapon', [path]);
      try {
        expect(statusOf(server.pid!, 'VmLck')).toBeGreaterThan(0);
        for (let round = 0; round < 3; round += 1) {
          await takeMemory();
          await execa('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'count=64', 'iflag=direct']);
        }
        // V8's heap and the rest of Node.js are on the device that this very process serves.
        expect(statusOf(server.pid!, 'VmSwap')).toBeGreaterThan(8 * MIB);
        expect((await ublk('info', '0')).stdout).toContain('live');
      } finally {
        await execa('swapoff', [path]);
      }
      server.kill('SIGTERM');
      expect((await server).exitCode).toBe(0);
      removeNullDisk('nullswap');
      await vi.waitFor(() => rmdirSync(GROUP));
    },
  );

  test('has no handler, whose memory is not locked', async () => {
    const target = handler({ size: MIB, read() {} });
    await expect(createDevice({ target, lockMemory: true })).rejects.toMatchObject({
      code: 'ERR_UBLK_INVALID_ARGUMENT',
      message: "lockMemory and a handler exclude each other: JavaScript's memory cannot be locked",
    });
  });

  test('needs the right to lock memory', async () => {
    const script = `
      import { createDevice, targets } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
      await createDevice({ target: targets.null({ size: 1 << 20 }), lockMemory: true }).catch((error) => console.log(error.code, error.message));
    `;
    const limited = 'ulimit -l 1024; exec node --input-type=module -e "$0"';
    const args = ['--bounding-set=-ipc_lock', 'sh', '-c', limited, script];
    const { stdout } = await execa('setpriv', args);
    expect(stdout).toContain('ERR_UBLK_PERMISSION cannot lock memory: the limit');
  });

  test('may stand beside devices that are not locked', async () => {
    await using plain = await createDevice({ target: targets.null({ size: MIB }) });
    await using locked = await createDevice({
      target: targets.null({ size: MIB }),
      lockMemory: true,
    });
    expect([plain.id, locked.id]).toEqual([0, 1]);
    expect(statusOf(process.pid, 'VmLck')).toBeGreaterThan(0);
  });
});
