// Names for addresses: the kernel's functions, the server's with what was inlined into them.

import { execa } from 'execa';
import { type Address, KERNEL, parseAddress } from './counts.ts';

/** From the outermost function to the innermost. */
export type Stack = readonly string[];

/** The kernel's functions by address, from lines of /proc/kallsyms. */
export class KernelSymbols {
  readonly #addresses: number[];
  readonly #names: string[];

  constructor(lines: readonly string[]) {
    const symbols = lines
      .map((line) => line.split(/\s+/))
      .flatMap(([address, type, name]) =>
        address && name && /^[tTwW]$/.test(type ?? '')
          ? [{ address: parseAddress(address), name }]
          : [],
      )
      .sort((one, other) => one.address - other.address);
    this.#addresses = symbols.map(({ address }) => address);
    this.#names = symbols.map(({ name }) => name);
  }

  nameOf(address: Address): string {
    return this.#names[this.#indexOf(address)] ?? 'unknown';
  }

  /** Whether a function begins there: it runs as often as the function is called. */
  isEntry(address: Address): boolean {
    return this.#addresses[this.#indexOf(address)] === address;
  }

  /** Of the function that begins last before the address; −1 without one. */
  #indexOf(address: Address): number {
    let low = 0;
    let high = this.#addresses.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#addresses[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

export interface Mapping {
  start: Address;
  end: Address;
  path: string;
}

/** Lines of /proc/PID/maps. */
export function parseMaps(lines: readonly string[]): Mapping[] {
  return lines.map((line) => {
    const [range = '', , , , , path = ''] = line.split(/\s+/);
    const [start = '', end = ''] = range.split('-');
    return { start: parseAddress(start), end: parseAddress(end), path };
  });
}

/** Tells whose an address is: the kernel's, the server's own code, its libraries', the client's. */
export class AddressSpace {
  readonly #kernel: KernelSymbols;
  readonly #maps: readonly Mapping[];
  readonly #server: string;
  /** Where the files begin whose functions are looked up: the server's own, and Node's addons. */
  readonly #bases: ReadonlyMap<string, Address>;
  #stacks = new Map<Address, Stack>();

  constructor(kernel: KernelSymbols, maps: readonly Mapping[], server: string) {
    this.#kernel = kernel;
    this.#maps = maps;
    this.#server = server;
    const paths = maps.map(({ path }) => path);
    const own = new Set(paths.filter((path) => path === server || path.endsWith('.node')));
    this.#bases = new Map([...own].map((path) => [path, this.#baseOf(path)]));
  }

  /** Looks up the server's own functions among the addresses, all of a file at once. */
  async resolve(addresses: Iterable<Address>): Promise<void> {
    const all = [...new Set(addresses)];
    this.#stacks = new Map();
    for (const [path, base] of this.#bases) {
      const own = all.filter((one) => this.#mapOf(one)?.path === path);
      if (own.length === 0) continue;
      const input = own.map((one) => `0x${(one - base).toString(16)}`).join('\n');
      const args = ['-e', path, '-a', '-f', '-C', '-i'];
      const { stdout } = await execa('addr2line', args, { input });
      const stacks = parseAddr2line(stdout);
      own.forEach((address, index) => this.#stacks.set(address, stacks[index] ?? ['unknown']));
    }
  }

  isEntry(address: Address): boolean {
    return address >= KERNEL && this.#kernel.isEntry(address);
  }

  stackOf(address: Address): Stack {
    if (address >= KERNEL) return ['kernel', this.#kernel.nameOf(address)];
    const mapping = this.#mapOf(address);
    if (!mapping) return ['client'];
    const file = mapping.path.replace(/.*\//, '');
    if (!this.#bases.has(mapping.path)) return ['server', file];
    const stack = this.#stacks.get(address) ?? ['unknown'];
    return mapping.path === this.#server ? ['server', ...stack] : ['server', file, ...stack];
  }

  #baseOf(path: string): Address {
    const own = this.#maps.filter((mapping) => mapping.path === path);
    return Math.min(...own.map(({ start }) => start));
  }

  #mapOf(address: Address): Mapping | undefined {
    return this.#maps.find(({ start, end }) => address >= start && address < end);
  }
}

/** What `addr2line -a -f -i` prints: for each address itself, then function and line by turns. */
export function parseAddr2line(text: string): Stack[] {
  const stacks: string[][] = [];
  let expectName = true;
  for (const line of text.trimEnd().split('\n')) {
    if (/^0x[0-9a-f]+$/.test(line)) {
      stacks.push([]);
      expectName = true;
      continue;
    }
    if (expectName) stacks.at(-1)?.unshift(shortName(line));
    expectName = !expectName;
  }
  return stacks;
}

/** Without the hash, the parameters of generic types and the crates' own name. */
function shortName(name: string): string {
  let plain = name.replace(/::h[0-9a-f]{16}$/, '');
  for (let before = ''; before !== plain;) {
    before = plain;
    plain = plain.replace(/::<[^<>]*>|(?<=\w)<[^<>]*>/g, '');
  }
  return plain.replaceAll('ublk_core::', '');
}
