import type { Device } from '../../device.ts';
import { invalid, UblkError } from '../../errors.ts';
import { waitingDevices } from '../../orphans.ts';
import { recoverDevice } from '../../recover.ts';
import { recordedWords } from '../../records/recall.ts';
import { isInBackground, runInBackground } from '../background.ts';
import type { OutputFlags } from '../output.ts';
import { ExitStatus, report } from '../report.ts';
import { endOnSignal, readyData, readyText, reportEnd, tellStalled } from '../serving.ts';
import { hearSignals } from '../signals.ts';
import { serve, type AddFlags } from './add.ts';

/** The flags of `ublk recover --all`. */
export interface RecoverAllFlags extends OutputFlags {
  readonly all?: true;
  readonly background?: true;
  /** In seconds. */
  readonly stopAfter?: number;
}

/** `ublk recover ID`: the target is the recorded one. */
export async function recoverRecorded(flags: AddFlags): Promise<void> {
  await serve(undefined, () => recordedWords(flags.recover ?? 0), flags);
}

/** `ublk recover --all`: a device that cannot be recovered does not keep the others. */
export async function recoverAll(id: number | undefined, flags: RecoverAllFlags): Promise<void> {
  if (id !== undefined) {
    throw invalid('--all and the number of a device exclude each other', 'leave one of them out');
  }
  if (!flags.all) {
    throw invalid('the number of a device is missing', 'name a device, or all of them with --all');
  }
  const signals = hearSignals();
  if (flags.background && !isInBackground()) return runInBackground(signals.first);
  const waiting = await waitingDevices();
  if (waiting.length === 0) {
    process.stdout.write(flags.json ? '[]\n' : 'no device waits for a server\n');
    return;
  }
  const { first: signal } = signals;
  const recovered = await Promise.all(
    waiting.map(({ id }) =>
      recoverDevice(id, {}, { signal }).catch((error) => failed(error, flags)),
    ),
  );
  const devices = recovered.filter((device) => device !== undefined);
  devices.forEach(tellStalled);
  endOnSignal(() => devices, signals, flags.stopAfter);
  if (devices.length > 0) announce(devices, flags);
  await Promise.all(devices.map((device) => reportEnd(device, signals)));
}

function announce(devices: readonly Device[], flags: RecoverAllFlags): void {
  for (const device of devices) {
    process.stderr.write(`${readyText(device, recordedWords(device.id), flags.background)}\n`);
  }
  const lines = devices.map((device) =>
    flags.json ? JSON.stringify(readyData(device)) : device.path,
  );
  process.stdout.write(`${lines.join('\n')}\n`);
}

function failed(error: unknown, flags: RecoverAllFlags): undefined {
  if (!UblkError.is(error)) throw error;
  report(error, flags.json === true);
  process.exitCode = ExitStatus.Failed;
}
