import { parseAddress } from '../../metrics/address.ts';
import { loadService } from '../../service/load.ts';
import { observe } from '../../service/observe.ts';
import { plan } from '../../service/plan.ts';
import { isInBackground, runInBackground } from '../background.ts';
import { answer, table } from '../output.ts';
import { row, runService, type ServeFlags } from '../run-service.ts';
import { hearSignals } from '../signals.ts';

/** `ublk serve CONFIG` */
export async function serve(path: string, flags: ServeFlags): Promise<void> {
  const declared = await loadService(path);
  if (flags.dryRun) {
    const steps = plan(declared.devices, await observe());
    await answer(flags, steps, () => table(steps.map(row), ['DEVICE', 'ACTION', 'WHY']));
    return;
  }
  if (flags.metrics !== undefined) parseAddress(flags.metrics, '--metrics');
  const signals = hearSignals(['SIGINT', 'SIGTERM']);
  if (flags.background && !isInBackground()) return runInBackground(signals.first);
  await runService(path, declared, flags, signals);
}
