// How often each instruction ran between two marks, as plugin.c writes it. Pure.

/**
 * An address without its upper 16 bits, which repeat the bit below them: exact as a number. The
 * kernel's begin at 2^47.
 */
export type Address = number;

export const KERNEL: Address = 2 ** 47;

export function parseAddress(hex: string): Address {
  return Number.parseInt(hex.slice(-12), 16);
}

/** Executions by address of instruction. */
export type Counts = ReadonlyMap<Address, number>;

/** One map for each processor. */
export function parseCounts(text: string): Counts[] {
  const processors: Map<Address, number>[] = [];
  for (const line of text.split('\n')) {
    const [cpu, executions, start, ...sizes] = line.split(' ');
    if (executions === undefined || start === undefined) continue;
    const counts = (processors[Number(cpu)] ??= new Map());
    let address = parseAddress(start);
    for (const size of sizes) {
      counts.set(address, (counts.get(address) ?? 0) + Number(executions));
      address += Number(size);
    }
  }
  return Array.from(processors, (counts) => counts ?? new Map());
}
