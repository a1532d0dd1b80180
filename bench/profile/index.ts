// Where the instructions of one row go: a plugin of the emulator counts them, function by function.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import type { Row } from '../matrix.ts';
import { buildServer, runScript } from '../run.ts';
import { profilingScript } from '../script.ts';
import { type Counts, parseCounts } from './counts.ts';
import { sideOf, withSide } from './sides.ts';
import { AddressSpace, KernelSymbols, parseMaps } from './symbols.ts';
import { type Folded, fold, growth } from './tree.ts';

export interface Profile {
  /** Instructions per I/O by stack: `client`, `kernel;FUNCTION`, `server;FUNCTION;INLINED…`. */
  instructions: Folded;
  /** Calls per I/O of the kernel's functions, by the same stacks. */
  calls: Folded;
}

export async function profile(row: Row, kernel?: string): Promise<Profile> {
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
    const program = row.subject.other?.program ?? server;
    const space = new AddressSpace(new KernelSymbols(said.symbols), parseMaps(said.maps), program);
    await space.resolve(second.flatMap((one) => [...one.keys()]));
    return compare(first, second, space, row.workload.count);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** What the second run has more than the first, by whoever ran it. */
function compare(first: Counts[], second: Counts[], space: AddressSpace, ios: number): Profile {
  const sides = second.map((counts) => sideOf(counts, (address) => space.stackOf(address)));
  const folded = (processors: Counts[]): Folded => {
    const all: Folded = new Map();
    processors.forEach((counts, cpu) => {
      fold(counts, (address) => withSide(space.stackOf(address), sides[cpu]), all);
    });
    return all;
  };
  const entries = (processors: Counts[]) =>
    processors.map((counts) => new Map([...counts].filter(([address]) => space.isEntry(address))));
  return {
    instructions: growth(folded(first), folded(second), ios),
    calls: growth(folded(entries(first)), folded(entries(second)), ios),
  };
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
