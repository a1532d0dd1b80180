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
export function parseCounts(text: string): Map<Address, number> {
  const counts = new Map<Address, number>();
  for (const line of text.split('\n')) {
    const [executions, start, ...sizes] = line.split(' ');
    if (executions === undefined || start === undefined) continue;
    let address = parseAddress(start);
    for (const size of sizes) {
      counts.set(address, (counts.get(address) ?? 0) + Number(executions));
      address += Number(size);
    }
  }
  return counts;
}
