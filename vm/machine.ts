// One run of the test machine, from its parts to the command's exit status.

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
import { serveFolder } from './virtiofsd.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');

/** Under TCG on a busy machine; the boot itself takes some ten seconds. */
const BOOT_SECONDS = 180;
const CONSOLE_LINES = 40;

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
      disk: options.disk && (await makeDisk(scratch, options.disk)),
      verbose: options.verbose ?? false,
    };
    const terminal = hardware.terminal;
    const qemu = start('qemu-system-x86_64', qemuArguments(hardware), { terminal });
    running.unshift(qemu);
    return await watch(qemu, ports, options, signal);
  } finally {
    for (const program of running) await program[Symbol.asyncDispose]();
    for (const port of Object.values(ports)) port.close();
  }
}

function describeJob(kernel: Kernel, options: VmOptions): Job {
  const cwd = resolve(options.cwd ?? '.');
  const shares = (options.shares ?? []).map((dir, i) => [`share${i}`, resolve(dir)] as const);
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
    terminal: interactive ? `rows ${rows} cols ${columns}` : '',
  };
}

function timeLimit({ timeout, command }: VmOptions): number {
  return timeout ?? (command.length === 0 ? 0 : 1800);
}

function defaultMemory(): string {
  return `${Math.min(8192, Math.floor(totalmem() / 2 ** 21))}M`;
}

async function makeDisk(scratch: Scratch, size: string): Promise<string> {
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
  const serve = async (tag: string, dir: string, cache: 'always' | 'auto') => {
    const socket = join(scratch.dir, `${tag}.sock`);
    running.push(await serveFolder(dir, socket, cache));
    sockets.set(tag, socket);
  };
  await serve('host', '/', 'always');
  for (const [tag, dir] of job.shares) await serve(tag, dir, 'auto');
  return sockets;
}

/** Relays what the guest says until the command has ended, or the machine, or the time. */
async function watch(
  qemu: Program,
  ports: Ports,
  options: VmOptions,
  signal: AbortSignal,
): Promise<VmResult> {
  const console = keepTail(ports.console, options.verbose ?? false);
  const output = [
    relay(ports.stdout, options.stdout ?? process.stdout),
    relay(ports.stderr, options.stderr ?? process.stderr),
  ];
  const limit = new AbortController();
  const failed = (what: string, status?: number) => {
    const said = qemu.stderr();
    const tail = console() || 'nothing';
    return new VmError(
      `${what}${said && `\nQEMU said:\n${said}`}\nThe console's last lines:\n${tail}`,
      status,
    );
  };

  return new Promise<VmResult>((settle, reject) => {
    const after = (seconds: number, what: string) =>
      setTimeout(() => reject(failed(what, 124)), seconds * 1000);
    const boot = after(BOOT_SECONDS, `The guest did not boot within ${BOOT_SECONDS} s.`);
    const seconds = timeLimit(options);
    // A little later than the guest's own limit, which puts its stuck tasks on the console.
    const total = seconds && after(seconds + 2, `The time limit of ${seconds} s is over.`);
    const abort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { signal: limit.signal });
    createInterface({ input: ports.status.output }).on('line', (line) => {
      if (line === 'up') clearTimeout(boot);
      const status = /^exit (\d+)$/.exec(line)?.[1];
      if (status !== undefined) settle({ status: Number(status) });
    });
    void qemu.ended.then(() => reject(failed('The machine ended before the command did.')));
    limit.signal.addEventListener('abort', () => {
      clearTimeout(boot);
      if (total) clearTimeout(total);
    });
  }).finally(async () => {
    limit.abort();
    await qemu[Symbol.asyncDispose]();
    await Promise.all(output);
  });
}

/** Copies a port's output; settles when all of it has been handed on. */
async function relay(port: Port, target: NodeJS.WritableStream): Promise<void> {
  port.output.pipe(target, { end: false });
  await finished(port.output, { writable: false });
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
