// One run of the test machine, from its parts to the command's exit status.

import { statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { chooseAccelerator } from './accel.ts';
import { buildInitramfs } from './initramfs.ts';
import { type Job, passedEnvironment } from './job.ts';
import type { Kernel } from './kernel.ts';
import { VmError, type VmOptions, type VmResult } from './options.ts';
import { type Port, listen } from './ports.ts';
import { type Program, start } from './processes.ts';
import { type Hardware, qemuArguments } from './qemu.ts';
import { type Scratch, makeScratch } from './scratch.ts';
import { type Serving, serveFolder } from './virtiofsd.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');

/** Under TCG on a busy machine; the boot itself takes some ten seconds. */
const BOOT_SECONDS = 180;
/** systemd starts some forty services, and an emulated guest stands still at times. */
const SYSTEMD_SECONDS = 480;
/** More than systemd gives a service, and the last kill. */
const DOWN_SECONDS = 300;
const CONSOLE_LINES = 40;

/** The guest was not fit before the command began, which happens by chance: another may be. */
export class BootError extends VmError {
  override name = 'BootError';
}

/** Boots `kernel`, runs the command, ends the machine. Rejects with a VmError if the machine fails. */
export async function runMachine(
  kernel: Kernel,
  options: VmOptions,
  signal: AbortSignal,
): Promise<VmResult> {
  await using scratch = await makeScratch();
  const job = describeJob(kernel, options);
  const initramfs = await buildInitramfs(scratch.dir, kernel, job);
  const accelerator = options.icount ? 'icount' : await chooseAccelerator(kernel.image, initramfs);
  const ports = await openPorts(scratch);
  const console = keepTail(ports.console, options.verbose ?? false);
  const targets = [options.stdout ?? process.stdout, options.stderr ?? process.stderr];
  const relays = [ports.stdout, ports.stderr].map((port, i) => relay(port, targets[i]!));
  const running: Program[] = [];
  try {
    const folders = await serveFolders(job, scratch, running);
    signal.throwIfAborted();
    const hardware: Hardware = {
      accelerator,
      cpus: options.cpus ?? 2,
      memory: options.memory ?? defaultMemory(),
      image: kernel.image,
      initramfs,
      folders,
      ...paths(ports),
      terminal: job.terminal !== '',
      systemd: job.init === 'systemd',
      disk: options.disk && (await makeDisk(scratch, options.disk)),
      verbose: options.verbose ?? false,
      further: options.qemu ?? [],
    };
    const terminal = hardware.terminal;
    const qemu = start('qemu-system-x86_64', qemuArguments(hardware), { terminal });
    running.unshift(qemu);
    return await Promise.race([
      watch(qemu, ports.status, console, options, signal),
      ...relays.map((relay) => relay.broken),
    ]);
  } finally {
    for (const program of running) await program[Symbol.asyncDispose]();
    for (const port of Object.values(ports)) port.close();
    await Promise.all(relays.map((relay) => relay.done));
  }
}

function describeJob(kernel: Kernel, options: VmOptions): Job {
  const cwd = folderAt(options.cwd ?? '.');
  const shares = (options.shares ?? []).map((dir, i) => [`share${i}`, folderAt(dir)] as const);
  const { columns, rows } = process.stdout;
  const interactive = options.command.length === 0;
  return {
    command: interactive ? [process.env.SHELL ?? '/bin/sh'] : options.command,
    cwd,
    env: { ...passedEnvironment(process.env), UBLK_VM: kernel.release, ...options.env },
    modules: kernel.modules,
    shares: new Map(shares),
    keep: [...new Set([CHECKOUT, cwd])],
    limit: options.icount ? 0 : timeLimit(options),
    init: options.init ?? 'script',
    root: options.root === undefined ? '' : folderAt(options.root),
    steady: !options.icount,
    terminal: interactive ? `rows ${rows} cols ${columns}` : '',
  };
}

function folderAt(path: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return resolve(path);
  throw new VmError(`There is no folder ${resolve(path)} to use in the guest.`);
}

function timeLimit({ timeout, command }: VmOptions): number {
  return timeout ?? (command.length === 0 ? 0 : 1800);
}

function defaultMemory(): string {
  return `${Math.min(8192, Math.floor(totalmem() / 2 ** 21))}M`;
}

/** An image of the caller's, or an empty one that is gone when the run ends. */
async function makeDisk(scratch: Scratch, size: string): Promise<string> {
  if (size.startsWith('/')) return size;
  const path = join(scratch.dir, 'disk.img');
  const [, count, unit = ''] = /^(\d+)([KMGT]?)$/i.exec(size) ?? [];
  if (count === undefined) throw new VmError(`A disk's size is like 512M or 2G, not "${size}".`);
  const file = await open(path, 'w');
  await file.truncate(Number(count) * 1024 ** ' KMGT'.indexOf(unit.toUpperCase() || ' '));
  await file.close();
  return path;
}

type Ports = Record<'console' | 'stdout' | 'stderr' | 'status', Port>;

async function openPorts({ dir }: Scratch): Promise<Ports> {
  return {
    console: await listen(join(dir, 'console')),
    stdout: await listen(join(dir, 'stdout')),
    stderr: await listen(join(dir, 'stderr')),
    status: await listen(join(dir, 'status')),
  };
}

function paths({ console, stdout, stderr, status }: Ports) {
  return { console: console.path, stdout: stdout.path, stderr: stderr.path, status: status.path };
}

/** The whole tree of the host, and the folders that the guest may write to. */
async function serveFolders(job: Job, scratch: Scratch, running: Program[]) {
  const sockets = new Map<string, string>();
  const serve = async (tag: string, dir: string, how: Serving) => {
    const socket = join(scratch.dir, `${tag}.sock`);
    running.push(await serveFolder(dir, socket, how));
    sockets.set(tag, socket);
  };
  await serve('host', '/', { cache: 'always', writable: false });
  for (const [tag, dir] of job.shares) await serve(tag, dir, { cache: 'auto', writable: true });
  return sockets;
}

/** Settles when the command has ended; rejects when the machine has, or the time, or `signal` says. */
async function watch(
  qemu: Program,
  status: Port,
  console: () => string,
  options: VmOptions,
  signal: AbortSignal,
): Promise<VmResult> {
  const over = new AbortController();
  const failure = (what: string, status?: number) => {
    const said = qemu.stderr() && `QEMU said:\n${qemu.stderr()}`;
    const shown = console() && `The console's last lines:\n${console()}`;
    return new VmError([what, said, shown].filter(Boolean).join('\n'), status);
  };
  return new Promise<VmResult>((settle, reject) => {
    const after = (seconds: number, what: string) =>
      setTimeout(() => reject(failure(what, 124)), seconds * 1000);
    const limit = options.init === 'systemd' ? SYSTEMD_SECONDS : BOOT_SECONDS;
    let timer = after(limit, `The guest did not boot within ${limit} s.`);
    let up = false;
    let down: number | undefined;
    const booted = () => {
      up = true;
      clearTimeout(timer);
      const seconds = timeLimit(options);
      // A little later than the guest's own limit, which puts its stuck tasks on the console.
      if (seconds) timer = after(seconds + 2, `The command took longer than ${seconds} s.`);
    };
    createInterface({ input: status.output }).on('line', (line) => {
      if (line === 'up') booted();
      const drift = /^clock (-?\d+)$/.exec(line)?.[1];
      if (drift !== undefined) {
        reject(new BootError(`The guest's clock went ${drift} s wrong while it booted.`));
      }
      const [, word, code] = /^(exit|down) (\d+)$/.exec(line) ?? [];
      if (word === 'exit') settle({ status: Number(code), console: console() });
      if (word !== 'down') return;
      down = Number(code);
      clearTimeout(timer);
      timer = after(DOWN_SECONDS, `The guest did not shut down within ${DOWN_SECONDS} s.`);
    });
    void qemu.ended.then(() => {
      if (down !== undefined) return settle({ status: down, console: console() });
      const ended = failure(`The machine ended before the command ${up ? 'did' : 'began'}.`);
      // Emulated processors may meet code that the kernel is patching, and panic with int3.
      const panicked = !up && /panic|Oops/.test(console());
      reject(panicked ? new BootError(ended.message) : ended);
    });
    signal.addEventListener('abort', () => reject(signal.reason), { signal: over.signal });
    over.signal.addEventListener('abort', () => clearTimeout(timer));
  }).finally(() => over.abort());
}

/** Copies a port's output: `done` when all of it is handed on, `broken` rejects when it cannot be. */
function relay(port: Port, target: NodeJS.WritableStream) {
  const done = finished(port.output, { writable: false });
  const broken = new Promise<never>((_, reject) => {
    const fail = (error: Error) => {
      port.output.resume(); // nobody reads it any more, but the guest must not be held up
      reject(error);
    };
    target.once('error', fail);
    void done.then(() => target.off('error', fail));
  });
  broken.catch(() => {}); // may come too late for anyone to be waiting
  port.output.pipe(target, { end: false });
  return { done, broken };
}

/** The last lines of the console, shown as they come if asked for. */
function keepTail(port: Port, show: boolean): () => string {
  let text = '';
  port.output.setEncoding('utf8').on('data', (chunk: string) => {
    if (show) process.stderr.write(chunk);
    text = (text + chunk).slice(-16384);
  });
  return () => text.trimEnd().split(/\r?\n/).slice(-CONSOLE_LINES).join('\n');
}
