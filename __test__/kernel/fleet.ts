import { beforeAll, type TestContext } from 'vitest';

import {
  createDevice,
  UblkError,
  type Counters,
  type Device,
  type DeviceOptions,
} from '../../src/index.ts';
import { fioAll } from './fio.ts';

interface Outcome {
  /** The errno that fio ended with, and how many requests failed. */
  trouble: { fio: number; errors: number };
  total: Counters;
  device: Device;
}

/** The trouble of a device that served what fio asked for. */
export const NO_TROUBLE = { fio: 0, errors: 0 };

/** What a fleet of devices needs. */
export interface FleetPlan<Mode> {
  /** One device each. */
  modes: readonly Mode[];
  options(mode: Mode): DeviceOptions;
  /** What else is to be done to a device; answers further arguments for its fio. */
  prepare?(device: Device, mode: Mode): Promise<readonly string[]>;
  /** How fio works on all of them; default: it verifies what it wrote. */
  how?: readonly string[];
  /** Other work than fio's. */
  work?(ships: readonly Ship<Mode>[]): Promise<void>;
}

interface Ship<Mode> {
  mode: Mode;
  device: Device;
}

/**
 * Serves a device in every mode, all at once, and has one fio work on them before the tests of this
 * `describe` begin, which ask for what became of theirs.
 */
export function fleet<Mode>(plan: FleetPlan<Mode>): {
  /** What became of a mode's device; the test is skipped where the kernel lacks the mode. */
  of(mode: Mode, context: TestContext): Outcome;
} {
  const outcomes = new Map<Mode, Outcome>();
  const refusals = new Map<Mode, unknown>();

  async function create(mode: Mode): Promise<Ship<Mode>[]> {
    try {
      return [{ mode, device: await createDevice(plan.options(mode)) }];
    } catch (error) {
      refusals.set(mode, error);
      return [];
    }
  }

  async function runFio(ships: readonly Ship<Mode>[]): Promise<number[]> {
    if (ships.length === 0) return [];
    const jobs = ships.map(async ({ mode, device }) => {
      return { path: device.path, more: (await plan.prepare?.(device, mode)) ?? [] };
    });
    return await fioAll(await Promise.all(jobs), plan.how);
  }

  beforeAll(async () => {
    const ships = (await Promise.all(plan.modes.map(create))).flat();
    try {
      const work = plan.work?.(ships).then(() => ships.map(() => 0));
      const errors = await (work ?? runFio(ships));
      for (const [index, { mode, device }] of ships.entries()) {
        const { total } = device.stats();
        const trouble = { fio: errors[index]!, errors: total.errors };
        outcomes.set(mode, { trouble, total, device });
      }
    } finally {
      await Promise.all(ships.map(({ device }) => device.close()));
    }
  });

  return {
    of(mode, context) {
      const refusal = refusals.get(mode);
      if (UblkError.is(refusal) && refusal.code === 'ERR_UBLK_UNSUPPORTED') {
        context.skip(refusal.message);
      }
      if (refusal !== undefined) throw refusal;
      return outcomes.get(mode)!;
    },
  };
}
