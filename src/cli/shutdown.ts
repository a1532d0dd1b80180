import { setTimeout as pause } from 'node:timers/promises';

import type { Device } from '../device.ts';
import { deviceUsers, stopDevice } from '../devices.ts';
import { UblkError, UblkErrorCode } from '../errors.ts';
import type { EndSignals } from './signals.ts';

/** How often a device in use is looked at, in milliseconds. */
const LOOK_MS = 1000;

/**
 * Ends the service of devices after a signal, and takes no device from its users: a device with
 * recovery is left to the next server at once, another device is served until nobody uses the device,
 * the second signal comes or the limit has passed. Resolves when the kernel has been asked about all
 * devices; `device.closed` reports the end of each. Ends the process where only the end of the process
 * leaves a device to the next server.
 *
 * @param limitMs The limit of the wait for users, in milliseconds; none, if absent.
 */
export async function shutDown(
  devices: readonly Device[],
  { second }: EndSignals,
  limitMs?: number,
): Promise<void> {
  const late =
    limitMs === undefined ? second : AbortSignal.any([second, AbortSignal.timeout(limitMs)]);
  const left = await Promise.all(devices.map((device) => endService(device, late)));
  const abandoned = devices.filter((_, at) => !left[at]);
  for (const { id, path } of abandoned)
    say(`${path} waits for its next server: ublk recover ${id}`);
  if (abandoned.length > 0) process.exit(0);
}

/** Whether the device has been left or stopped; otherwise the end of the process leaves the device. */
async function endService(device: Device, late: AbortSignal): Promise<boolean> {
  if (device.features.includes('USER_RECOVERY')) return await leave(device, late);
  await release(device, late);
  return true;
}

/** Leaves the device to the next server, and waits no longer than `late` for its requests. */
async function leave(device: Device, late: AbortSignal): Promise<boolean> {
  const abandoned = untilAborted(late).then(() => false);
  try {
    return await Promise.race([device.quiesce().then(() => true), abandoned]);
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    if (error.code === UblkErrorCode.Unsupported) return false;
    say(`${error.message}; ${device.path} is served on, a second signal ends its server`);
    const ended = device.closed.then(
      () => true,
      () => true,
    );
    return await Promise.race([ended, abandoned]);
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  );
}

/** Stops the device as soon as nobody uses the device; after `late`, whoever does. */
async function release(device: Device, late: AbortSignal): Promise<void> {
  const told = new Set<string>();
  while (!late.aborted) {
    try {
      await stopDevice(device.id);
      return;
    } catch (error) {
      if (!UblkError.is(error)) throw error;
      // Another process has stopped the device: `device.closed` reports the end.
      if (error.code === UblkErrorCode.NoDevice) return;
      tell(error.message, told);
    }
    await untilUnused(device.id, late, told);
  }
  await device.close();
}

async function untilUnused(id: number, late: AbortSignal, told: Set<string>): Promise<void> {
  for (;;) {
    await pause(LOOK_MS, undefined, { signal: late }).catch(() => {});
    if (late.aborted) return;
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
