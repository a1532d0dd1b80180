// How long `ublk serve` of many devices takes until all can be opened, and how much of that the kernel's
// control commands take: `npm run vm -- node bench/ready.mjs`. The environment variable FLEET is the number
// of devices, 100 by default. Commands that the kernel runs side by side count one by one.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
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
  return { calls: calls.length, 'kernel ms': calls.reduce((sum, us) => sum + us, 0) / 1000 };
}

/**
 * Milliseconds from the start of `ublk serve` until it has announced so many devices, and what `look` finds
 * then. The devices are closed.
 */
async function serve(config, count, look = () => ({})) {
  const began = performance.now();
  const options = { stdio: ['ignore', 'pipe', 'ignore'] };
  const server = spawn(process.execPath, [CLI, 'serve', config], options);
  const ended = once(server, 'exit');
  let said = '';
  for await (const part of server.stdout) {
    said += part;
    if (said.split('/dev/ublkb').length > count) break;
  }
  const row = { ms: performance.now() - began, ...look() };
  server.kill('SIGTERM');
  await ended;
  return row;
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
const single = join(folder, 'one.json');
writeFileSync(
  single,
  JSON.stringify({ devices: { one: { target: { kind: 'null', size: '1MiB' } } } }),
);

if (!existsSync(join(TRACING, 'trace'))) execFileSync('mount', ['-t', 'tracefs', 'none', TRACING]);
const rows = { 'one device': await serve(single, 1), plain: await serve(config, DEVICES) };
startTracing();
rows.traced = await serve(config, DEVICES, kernelTime);
console.table(rows);
