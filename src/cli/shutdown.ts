import { setTimeout as pause } from 'node:timers/promises';

import type { Device } from '../device.ts';
import { deviceUsers, stopDevice } from '../devices.ts';
import { UblkError, UblkErrorCode } from '../errors.ts';
import type { EndSignals } from './signals.ts';

/** How often a device in use is looked at, in milliseconds. */
const LOOK_MS = 1000;

/**
 * Ends the service of a device after a signal, and takes the device from nobody: a device with
 * recovery is left to the next server, another one is served until nobody uses it or the second
 * signal comes. Resolves when the kernel has been asked; `device.closed` tells the rest.
 */
export async function shutDown(device: Device, signals: EndSignals): Promise<void> {
  const isRecoverable = device.features.includes('USER_RECOVERY');
  await (isRecoverable ? leave(device, signals) : release(device, signals));
}

/** Leaves the device to the next server; at the second signal without waiting for its requests. */
async function leave(device: Device, { second }: EndSignals): Promise<void> {
  const abandon = (): never => endAtOnce(device);
  second.addEventListener('abort', abandon);
  try {
    await device.quiesce();
    second.removeEventListener('abort', abandon);
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    // The end of the process leaves the device too.
    if (error.code === UblkErrorCode.Unsupported) abandon();
    else say(`${error.message}; ${device.path} is served on, a second signal ends its server`);
  }
}

/** Ends the process, which leaves a device with recovery to the next server. */
function endAtOnce({ id, path }: Device): never {
  say(`${path} waits for its next server: ublk recover ${id} …`);
  process.exit(0);
}

/** Stops the device as soon as nobody uses it; after the second signal, whoever does. */
async function release(device: Device, { second }: EndSignals): Promise<void> {
  const told = new Set<string>();
  while (!second.aborted) {
    try {
      await stopDevice(device.id);
      return;
    } catch (error) {
      if (!UblkError.is(error)) throw error;
      // Somebody else has stopped the device: `device.closed` tells.
      if (error.code === UblkErrorCode.NoDevice) return;
      tell(error.message, told);
    }
    await untilUnused(device.id, second, told);
  }
  await device.close();
}

async function untilUnused(id: number, second: AbortSignal, told: Set<string>): Promise<void> {
  for (;;) {
    await pause(LOOK_MS, undefined, { signal: second }).catch(() => {});
    if (second.aborted) return;
    const users = await deviceUsers(id).catch(() => undefined);
    if (users === undefined || users.found.length === 0) return;
    tell(`ublk device ${id} is in use: ${users.text}`, told);
  }
}

function tell(message: string, told: Set<string>): void {
  if (told.has(message)) return;
  told.add(message);
  say(`${message}; it is served until nobody uses it, or a second signal takes it away`);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
