// Creates and closes many devices: `npm run vm -- --icount node bench/fleet.mjs [DIST…]`. Each DIST is the
// compiled package of a checkout; several are compared in one run. Of the machine's memory only the
// figure of the first DIST counts: the kernel keeps that memory for the next.
// The environment variable FLEET is the number of devices, 100 by default.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';

const DEVICES = Number(process.env.FLEET ?? 100);
/** Longer than idle threads of ublk and of io_uring stay. */
const REST_MS = 12_000;

const me = fileURLToPath(import.meta.url);
const [mode, ...given] = process.argv.slice(2);
if (mode === '--one') {
  console.log(JSON.stringify(await measure(given[0])));
} else {
  const builds = mode ? [mode, ...given] : [fileURLToPath(new URL('../dist', import.meta.url))];
  const rows = {};
  for (const dist of builds) {
    const out = execFileSync(process.execPath, [me, '--one', dist], { encoding: 'utf8' });
    rows[dist] = JSON.parse(out);
  }
  console.table(rows);
}

async function measure(dist) {
  const { createDevice, createReactorPool, targets } = await import(
    pathToFileURL(`${dist}/index.js`)
  );
  // Not `null`: its queue setting wbt_lat_usec makes the kernel freeze the queue.
  const folder = mkdtempSync(`${tmpdir()}/ublk-fleet-`);
  writeFileSync(`${folder}/disk`, Buffer.alloc(1 << 20));
  const target = targets.file(`${folder}/disk`, { readOnly: true });
  const pool = await createReactorPool({ reactors: 2 });
  const create = () => createDevice({ target, pool, depth: 32 });
  const times = async (count, task) => {
    const taken = [];
    for (let at = 0; at < count; at++) {
      const begun = performance.now();
      await task(at);
      taken.push(performance.now() - begun);
    }
    return taken;
  };
  await times(5, async () => await (await create()).close());
  await pause(REST_MS);
  const before = usage();
  const devices = [];
  const creates = await times(DEVICES, async () => devices.push(await create()));
  await pause(REST_MS);
  const rest = usage();
  const alone = await times(DEVICES, (at) => devices[at].close());
  const again = [];
  await times(DEVICES, async () => again.push(await create()));
  await pause(1000);
  const begun = performance.now();
  await Promise.all(again.map((device) => device.close()));
  const together = performance.now() - begun;
  await pool.close();
  rmSync(folder, { recursive: true });
  const one = sum(alone);
  return {
    createMs: round(median(creates)),
    threads: rest.threads,
    residentKiB: round((rest.resident - before.resident) / DEVICES),
    machineKiB: round((before.available - rest.available) / DEVICES),
    closeMs: round(median(alone)),
    closeOneByOneMs: round(one),
    closeTogetherMs: round(together),
    ratio: (together / one).toFixed(2),
  };
}

/** The threads of this process; its memory and the machine's free memory in KiB. */
function usage() {
  const field = (path, name) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync(path, 'utf8'))[1]);
  return {
    threads: readdirSync('/proc/self/task').length,
    resident: field('/proc/self/status', 'VmRSS'),
    available: field('/proc/meminfo', 'MemAvailable'),
  };
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function sum(values) {
  return values.reduce((all, value) => all + value, 0);
}

function round(value) {
  return Math.round(value * 10) / 10;
}
