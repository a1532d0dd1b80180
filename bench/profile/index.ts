// Where the instructions of one row go: a plugin of the emulator counts them, function by function.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import type { Row } from '../matrix.ts';
import { buildServer, runScript } from '../run.ts';
import { profilingScript } from '../script.ts';
import { parseCounts } from './counts.ts';
import { AddressSpace, KernelSymbols, parseMaps } from './symbols.ts';
import { type Folded, fold, growth } from './tree.ts';

/** Instructions per I/O by stack: `client`, `kernel;FUNCTION`, `server;FUNCTION;INLINED…`. */
export async function profile(row: Row, kernel?: string): Promise<Folded> {
  const dir = await mkdtemp(join(tmpdir(), 'ublk-profile-'));
  try {
    const server = await buildServer();
    const plugin = await buildPlugin(dir);
    const out = join(dir, 'counts');
    const said = new Sections();
    const status = await runScript(profilingScript(row, server), (line) => said.read(line), {
      icount: true,
      kernel,
      qemu: ['-plugin', `file=${plugin},out=${out}`],
    });
    if (status !== 0 || said.failure) {
      throw new Error(`Could not profile ${row.id}: ${said.failure ?? `status ${status}`}`);
    }
    const counts = async (mark: number) => parseCounts(await readFile(`${out}.${mark}`, 'utf8'));
    const [first, second] = [await counts(2), await counts(3)];
    const space = new AddressSpace(new KernelSymbols(said.symbols), parseMaps(said.maps), server);
    await space.resolve(second.keys());
    const folded = (one: Map<number, number>) => fold(one, (address) => space.stackOf(address));
    return growth(folded(first), folded(second), row.workload.count);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function buildPlugin(dir: string): Promise<string> {
  const { stdout } = await execa('qemu-system-x86_64', ['--version']);
  const major = Number(/version (\d+)/.exec(stdout)?.[1]);
  const plugin = join(dir, 'plugin.so');
  const source = fileURLToPath(new URL('plugin.c', import.meta.url));
  // The parts of the API that it uses are the same in all; QEMU 9 wants to hear version 2.
  const version = `-DPLUGIN_VERSION=${major >= 9 ? 2 : 1}`;
  const flags = ['-shared', '-fPIC', '-O2', '-fvisibility=hidden', version];
  await execa('cc', [...flags, '-o', plugin, source]);
  return plugin;
}

/** What guest.sh says of the machine's addresses. */
class Sections {
  readonly symbols: string[] = [];
  readonly maps: string[] = [];
  failure: string | undefined;
  #into: string[] | undefined;

  read(line: string): void {
    if (line === '@symbols') this.#into = this.symbols;
    else if (line === '@maps') this.#into = this.maps;
    else if (line === '@end') this.#into = undefined;
    else if (line.startsWith('@failed ')) this.failure = line.slice('@failed '.length);
    else this.#into?.push(line);
  }
}
