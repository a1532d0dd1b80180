import { resolve } from 'node:path';

import { defaultSocket } from '../../control/protocol.ts';
import { invalid } from '../../errors.ts';
import { Predecessor } from '../../handover/predecessor.ts';
import { prepare, refusalOf, type HandOverStep } from '../../handover/prepare.ts';
import { loadService } from '../../service/load.ts';
import { isInBackground, runInBackground } from '../background.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { ExitStatus, report } from '../report.ts';
import { row, runService, type ServiceFlags } from '../run-service.ts';
import { hearSignals } from '../signals.ts';
import type { ManagerPlace } from '../systemd/manager.ts';

/** The flags of `ublk upgrade`. */
export interface UpgradeFlags extends OutputFlags {
  /** The control socket of the old server. */
  readonly socket?: string;
  readonly dryRun?: true;
  readonly background?: true;
  readonly pidFile?: string;
}

/** What `ublk serve` leaves to `ublk upgrade`, as far as the old server is `ublk serve`. */
interface Left {
  readonly flags?: ServiceFlags;
  readonly manager?: ManagerPlace;
}

/** `ublk upgrade [CONFIG]` */
export async function upgrade(path: string | undefined, flags: UpgradeFlags): Promise<void> {
  const signals = hearSignals(['SIGINT', 'SIGTERM']);
  if (flags.background && !flags.dryRun && !isInBackground()) {
    return runInBackground(signals.first);
  }
  const predecessor = await Predecessor.connect(resolve(flags.socket ?? defaultSocket()));
  try {
    const { hello } = predecessor;
    const file = path ?? hello.config;
    if (file === undefined) {
      const message = `process ${hello.pid} serves devices of a program, and no configuration`;
      throw invalid(message, 'name the configuration of the new server: ublk upgrade ublk.toml');
    }
    const declared = await loadService(file);
    const prepared = await prepare(hello, declared.devices);
    if (flags.dryRun) return await show(prepared.steps, flags);
    const refusal = refusalOf(prepared.steps);
    if (refusal) throw refusal;
    const { flags: left, manager } = (hello.serving ?? {}) as Left;
    const { path: control, group: controlGroup } = hello.control;
    const { pidFile = left?.pidFile, json } = flags;
    const serving = { ...left, control, controlGroup, pidFile, ...(json && { json }) };
    const takeover = { ...prepared, predecessor, manager };
    await runService(file, declared, serving, signals, takeover);
  } finally {
    predecessor.leave();
  }
}

/** What would be done, and what cannot be. */
async function show(steps: readonly HandOverStep[], flags: OutputFlags): Promise<void> {
  await answer(flags, steps, () => table(steps.map(row), ['DEVICE', 'ACTION', 'WHY']));
  for (const { error } of steps) {
    if (error === undefined) continue;
    if (!flags.json) report(error, false);
    process.exitCode = ExitStatus.Failed;
  }
}
