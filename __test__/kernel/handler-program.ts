import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

import { temporaryFolder } from './image.ts';

/** What has been built, as programs import it. */
export const PACKAGE = fileURLToPath(new URL('../../dist/index.js', import.meta.url));

/** A disk in memory that workers share; it crashes when its last block is read, which fio leaves. */
const DISK = `
  export default (memory) => {
    const disk = Buffer.from(memory);
    return {
      size: disk.length,
      read({ data, offset }) {
        if (offset === disk.length - 4096) process.nextTick(() => { throw new Error('crash'); });
        disk.copy(data, 0, offset);
      },
      async write({ data, offset }) {
        if (offset % 8192 === 0) await new Promise(setImmediate);
        data.copy(disk, offset);
      },
      flush() {},
    };
  };
`;

/** How {@link run} runs a program. */
export interface RunOptions {
  /** Another Node.js than the one that runs this test. */
  readonly node?: string;
  readonly nodeOptions?: readonly string[];
}

/** Runs a program that has what it takes to serve a disk and to keep it busy. */
export function run(program: string, options: RunOptions = {}) {
  const { node = process.execPath, nodeOptions = [] } = options;
  const module = join(temporaryFolder(), 'disk.mjs');
  writeFileSync(module, DISK);
  const imports = `
    import { execFile } from 'node:child_process';
    import { once } from 'node:events';
    import { setTimeout as sleep } from 'node:timers/promises';
    import { promisify } from 'node:util';
    import { Worker } from 'node:worker_threads';
    import { createDevice, handlerModule, listDevices } from ${JSON.stringify(PACKAGE)};
    const run = promisify(execFile);
    const fio = (device, ...more) => run('fio', ['--name=load', '--filename=' + device.path,
      '--rw=randwrite', '--allow_file_create=0', '--bs=4k', '--size=4M', '--ioengine=libaio', '--iodepth=32', '--direct=1',
      ...more]);
    const verify = ['--verify=crc32c', '--verify_fatal=1'];
    const disk = Buffer.alloc(4 << 20);
    const handler = {
      size: disk.length,
      read({ data, offset }) { disk.copy(data, 0, offset); },
      async write({ data, offset }) { await null; data.copy(disk, offset); },
    };
    const workers = (count) => handlerModule(${JSON.stringify(module)}, {
      workers: count,
      data: new SharedArrayBuffer((4 << 20) + 4096),
    });
  `;
  // A slow machine is told of event loops that are late.
  const args = ['--no-warnings', ...nodeOptions, '--input-type=module', '--eval'];
  return execa(node, [...args, imports + program], { reject: false });
}
