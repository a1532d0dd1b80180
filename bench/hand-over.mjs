// How long requests wait for a hand-over: `npm run vm -- --icount node bench/hand-over.mjs [ROUNDS]`.
// Compares the oldest request of each `ublk upgrade` with that of a bare quiesce and recovery: by one process,
// which has done so before, and by two processes that do so for the first time, as an upgrade's do.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { createDevice, recoverDevice, targets } from '../dist/index.js';

const ROUNDS = Number(process.argv[2] ?? 20);
const INDEX = new URL('../dist/index.js', import.meta.url).href;
const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const run = promisify(execFile);

const folder = mkdtempSync(join(tmpdir(), 'ublk-hand-over-'));
const image = join(folder, 'disk.img');
writeFileSync(image, '');
truncateSync(image, 64 << 20);
try {
  console.table({
    'quiesce and recover': await bare(),
    'by fresh processes': await fresh(),
    'ublk upgrade': await upgrades(),
  });
} finally {
  rmSync(folder, { recursive: true });
}

/** Does `step` again and again under load; the oldest request of each round. */
async function measure(step) {
  const oldest = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const load = fio();
    await pause(2000);
    await step();
    const { stdout } = await load;
    const { jobs } = JSON.parse(stdout);
    oldest.push(Math.max(...jobs.flatMap(({ read, write }) => [read, write].map(clat))) / 1e6);
  }
  oldest.sort((a, b) => a - b);
  const of = (share) => Number(oldest[Math.floor(share * (ROUNDS - 1))].toFixed(1));
  return { rounds: ROUNDS, 'median ms': of(0.5), 'p90 ms': of(0.9), 'longest ms': of(1) };
}

function clat({ clat_ns: { max } }) {
  return max;
}

/** Writes with checksums that are read back, for some seconds. */
function fio() {
  const args = ['--name=load', '--filename=/dev/ublkb0', '--allow_file_create=0', '--rw=randrw'];
  const more = [
    '--bs=4k',
    '--size=16M',
    '--verify_backlog=64',
    '--ioengine=libaio',
    '--iodepth=4',
    '--direct=1',
    '--rate_iops=200',
  ];
  const check = ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0'];
  const time = ['--time_based', '--runtime=6', '--output-format=json'];
  return run('fio', [...args, ...more, ...check, ...time]);
}

async function bare() {
  const target = targets.file(image);
  let device = await createDevice({ target, recovery: 'reissue', id: 0 });
  const result = await measure(async () => {
    await device.quiesce();
    device = await recoverDevice(0, { target });
  });
  await device.close();
  return result;
}

/** Each round has a process that serves and, already started, a process that serves next. */
async function fresh() {
  const program = `
    import { createDevice, recoverDevice, targets } from ${JSON.stringify(INDEX)};
    const target = targets.file(${JSON.stringify(image)});
    const [order] = process.argv.slice(1);
    const told = () => new Promise((resolve) => process.stdin.once('data', resolve));
    if (order === 'recover') { console.log('started'); await told(); }
    const device = order === 'create'
      ? await createDevice({ target, recovery: 'reissue', id: 0 })
      : await recoverDevice(0, { target });
    console.log('serves');
    await told();
    await device.quiesce();
    console.log('left');
    process.exit();
  `;
  const spawnOne = (order) => start('--input-type=module', '-e', program, order);
  let server = await spawnOne('create');
  const result = await measure(async () => {
    const next = await spawnOne('recover');
    server.tell();
    await server.says();
    next.tell();
    await next.says();
    server = next;
  });
  server.tell();
  await server.says();
  const device = await recoverDevice(0, { target: targets.file(image) });
  await device.close();
  return result;
}

async function upgrades() {
  const config = join(folder, 'ublk.json');
  const disk = { target: { kind: 'file', path: image }, recovery: 'reissue', id: 0 };
  writeFileSync(config, JSON.stringify({ devices: { disk } }));
  let server = await start(CLI, 'serve', config);
  const result = await measure(async () => {
    const next = await start(CLI, 'upgrade');
    await server.ended;
    server = next;
  });
  await run('node', [CLI, 'stop', '0']);
  await server.ended;
  return result;
}

/** Starts a process, and waits for its first line. */
async function start(...args) {
  const server = spawn('node', args, { stdio: ['pipe', 'pipe', 'ignore'] });
  const ended = once(server, 'exit');
  const lines = createInterface({ input: server.stdout });
  const says = () => once(lines, 'line');
  await says();
  return { ended, says, tell: () => server.stdin.write('go on\n') };
}
