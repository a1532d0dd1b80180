import { wrong } from './errors.ts';

/**
 * A number of bytes, or text: `'4k'`, `'1GiB'`, `'1.5G'`, `'2048s'` (sectors of 512 bytes).
 * K, M, G, T and P count in steps of 1024, with or without `iB`; `KB` is refused, since people
 * mean both 1000 and 1024 by it.
 */
export type Size = number | bigint | string;

const PREFIXES = 'kmgtp';
const TEXT = /^(\d+)(?:\.(\d+))? ?([a-z]*)$/i;

/**
 * A size in bytes.
 *
 * @param name What the size is of, for the error.
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`: no size, no whole number of bytes, or more than
 * 2^53 - 1 bytes.
 */
export function parseSize(size: Size, name = 'size'): number {
  const bytes = exactBytes(size, name);
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw wrong(name, `is ${size}; it can be 9007199254740991 bytes (8 PiB) at most`);
  }
  return Number(bytes);
}

function exactBytes(size: Size, name: string): bigint {
  if (typeof size === 'string') return textBytes(size, name);
  const whole = typeof size === 'bigint' || (typeof size === 'number' && Number.isInteger(size));
  if (!whole || size < 0) {
    throw wrong(
      name,
      `is ${String(size)}; it must be a whole number of bytes`,
      "write a number, a bigint, or text such as '64MiB'",
    );
  }
  return BigInt(size);
}

function textBytes(text: string, name: string): bigint {
  const [, whole, fraction = '', unit = ''] = TEXT.exec(text) ?? [];
  if (whole === undefined) throw noSize(text, name);
  const product = BigInt(whole + fraction) * unitBytes(unit, text, name);
  const scale = 10n ** BigInt(fraction.length);
  if (product % scale !== 0n) throw wrong(name, `'${text}' is no whole number of bytes`);
  return product / scale;
}

function unitBytes(unit: string, text: string, name: string): bigint {
  if (unit === '' || unit === 'B') return 1n;
  if (unit === 's') return 512n;
  const power = PREFIXES.indexOf(unit.charAt(0).toLowerCase()) + 1;
  const rest = unit.slice(1).toLowerCase();
  if (power === 0 || !['', 'i', 'ib', 'b'].includes(rest)) throw noSize(text, name);
  if (rest === 'b') {
    throw wrong(
      name,
      `'${text}' can be read in two ways`,
      `write '${text.slice(0, -1)}iB' for steps of 1024, or the number of bytes`,
    );
  }
  return 1024n ** BigInt(power);
}

function noSize(text: string, name: string): Error {
  return wrong(name, `'${text}' is no size`, "write it like '4096', '4k', '64MiB' or '1GiB'");
}

/** A size for people: `1.5 GiB`; exact sizes without a fraction. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1024 && power < PREFIXES.length) {
    value /= 1024;
    power += 1;
  }
  const digits = Number.isInteger(value) ? String(value) : value.toFixed(1);
  return power === 0 ? `${digits} B` : `${digits} ${PREFIXES.charAt(power - 1).toUpperCase()}iB`;
}
