// How long `ublk serve` of many devices takes until all can be opened, and how much of that the kernel's
// control commands take: `npm run vm -- node bench/ready.mjs`. The environment variable FLEET is the number
// of devices, 100 by default. Commands that the kernel runs side by side count one by one.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

const DEVICES = Number(process.env.FLEET ?? 100);
const TRACING = '/sys/kernel/tracing';
const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** Traces how long each call of the driver's control commands lasts (function graph tracer). */
function startTracing() {
  const settings = {
    max_graph_depth: '1',
    set_graph_function: 'ublk_ctrl_uring_cmd',
    buffer_size_kb: '4096',
    current_tracer: 'function_graph',
  };
  for (const [name, value] of Object.entries(settings)) writeFileSync(join(TRACING, name), value);
}

/** Milliseconds of all calls. */
function kernelTime() {
  const trace = readFileSync(join(TRACING, 'trace'), 'utf8');
  const calls = [...trace.matchAll(/([\d.]+) us +\|/g)].map(([, us]) => Number(us));
  return { calls: calls.length, ms: calls.reduce((sum, us) => sum + us, 0) / 1000 };
}

/** Milliseconds of a child until its stdout has said `what` so many times, and the child. */
async function until(args, what, times) {
  const began = performance.now();
  const child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
  let said = '';
  for await (const part of child.stdout) {
    said += part;
    if (said.split(what).length > times) break;
  }
  return { child, ms: performance.now() - began };
}

const folder = mkdtempSync(join(tmpdir(), 'ublk-ready-'));
const image = (at) => {
  const path = join(folder, `${at}.img`);
  writeFileSync(path, '');
  truncateSync(path, 1 << 20);
  return path;
};
const ids = Array.from({ length: DEVICES }, (_, at) => at);
const devices = ids.map((id) => [`d${id}`, { id, target: { kind: 'file', path: image(id) } }]);
const config = join(folder, 'ublk.json');
writeFileSync(config, JSON.stringify({ devices: Object.fromEntries(devices) }));
const empty = join(folder, 'empty.json');
writeFileSync(
  empty,
  JSON.stringify({ devices: { one: { target: { kind: 'null', size: '1MiB' } } } }),
);

if (!existsSync(TRACING)) throw new Error(`no tracing: mount -t tracefs none ${TRACING}`);
const plain = await until(['serve', config], '/dev/ublkb', DEVICES);
plain.child.kill('SIGTERM');
await new Promise((ended) => plain.child.once('exit', ended));
const one = await until(['serve', empty], '/dev/ublkb', 1);
one.child.kill('SIGTERM');
await new Promise((ended) => one.child.once('exit', ended));
startTracing();
const traced = await until(['serve', config], '/dev/ublkb', DEVICES);
const kernel = kernelTime();
traced.child.kill('SIGTERM');
console.table({ plain: { ms: plain.ms }, one: { ms: one.ms }, traced: { ms: traced.ms }, kernel });
