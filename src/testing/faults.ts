import { checkKeys } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeFaults } from '../native.ts';

/** The frequency of faults below the server: probabilities from 0 to 1, in steps of 0.001. */
export interface Faults {
  /**
   * A read or write of a backend moves too few bytes. The server continues with the rest, unnoticed by
   * clients.
   * @default 0
   */
  readonly short?: number | undefined;
  /**
   * A backend fails with `EIO`; of a failed write, some sectors are written.
   * @default 0
   */
  readonly error?: number | undefined;
  /**
   * A backend is interrupted (`EINTR`, `EAGAIN`) and does nothing. The server tries again.
   * @default 0
   */
  readonly interrupted?: number | undefined;
  /**
   * A command of the ublk driver fails temporarily, mostly with `ENOMEM`: the registration of a
   * request's buffer, a fetch, a commit. The server tries again up to 16 times.
   * @default 0
   */
  readonly command?: number | undefined;
  /**
   * A backend answers late, so that requests overtake each other.
   * @default 0.5
   */
  readonly delay?: number | undefined;
}

/** The number of injected faults, for each kind of {@link Faults}. */
export interface InjectedFaults {
  readonly short: number;
  readonly error: number;
  readonly interrupted: number;
  readonly command: number;
}

const NONE: Required<Faults> = { short: 0, error: 0, interrupted: 0, command: 0, delay: 0.5 };

/** Checks faults and converts the faults for the addon. */
export function toNativeFaults(faults: Faults): NativeFaults {
  checkKeys(faults, 'faults', Object.keys(NONE));
  const of = (name: keyof Faults): number => permille(faults[name] ?? NONE[name]!, name);
  return {
    short: of('short'),
    error: of('error'),
    interrupted: of('interrupted'),
    command: of('command'),
    delay: of('delay'),
  };
}

function permille(probability: unknown, name: string): number {
  if (typeof probability === 'number' && probability >= 0 && probability <= 1) {
    return Math.ceil(probability * 1000 - 1e-9);
  }
  throw invalid(`faults.${name} is ${String(probability)}; it must be a number from 0 to 1`);
}
