import { deleteDevice, listDevices } from '../../devices.ts';
import { invalid, UblkError, UblkErrorCode } from '../../errors.ts';
import { answer, type OutputFlags } from '../output.ts';
import { ExitStatus, report } from '../report.ts';

/** The flags of `ublk delete`. */
export interface DeleteFlags extends OutputFlags {
  readonly all?: true;
  readonly force?: true;
}

/** `ublk delete ID...`, `ublk delete --all`: a device that stays does not keep the others. */
export async function remove(ids: readonly number[], flags: DeleteFlags): Promise<void> {
  if (flags.all !== undefined && ids.length > 0) {
    throw invalid('--all and numbers of devices exclude each other', 'leave one of them out');
  }
  if (flags.all === undefined && ids.length === 0) {
    throw invalid('the number of a device is missing', 'name devices, or all of them with --all');
  }
  const chosen = flags.all ? (await listDevices()).map(({ id }) => id) : [...new Set(ids)];
  if (chosen.length === 0) {
    if (!flags.json) process.stdout.write('no ublk devices\n');
    return;
  }
  for (const id of chosen) await removeOne(id, flags, chosen.length === 1);
}

async function removeOne(id: number, flags: DeleteFlags, isOnly: boolean): Promise<void> {
  try {
    await deleteDevice(id, { force: flags.force });
  } catch (error) {
    if (isOnly || !UblkError.is(error)) throw error;
    // One of all that has gone by itself meanwhile is what was asked for.
    if (flags.all && error.code === UblkErrorCode.NoDevice) return;
    report(error, flags.json === true);
    process.exitCode = ExitStatus.Failed;
    return;
  }
  await answer(flags, { id, deleted: true }, () => `deleted device ${id}`);
}
