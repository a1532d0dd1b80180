import { stopDevice } from '../../devices.ts';
import type { StopCheck } from '../../info.ts';
import { answer, type OutputFlags } from '../output.ts';
import { inService } from '../served.ts';

/** The flags of `ublk stop`. */
export interface StopFlags extends OutputFlags {
  readonly force?: true;
}

const NOTES: Record<StopCheck, string> = {
  openers: '',
  holders: ' (unused as far as /proc and /sys tell: from Linux 7.0 on the kernel itself looks)',
  nothing: '',
};

/** `ublk stop ID` */
export async function stop(id: number, flags: StopFlags): Promise<void> {
  const { force } = flags;
  const served = await inService(id);
  const checked = served
    ? (await served.client.stop(served.name, { force })).checked
    : await stopDevice(id, { force });
  const said = { id, stopped: true, checked };
  await answer(flags, said, () => `stopped device ${id}${NOTES[checked]}`);
}
