import { setTimeout as pause } from 'node:timers/promises';

import type { Device } from '../device.ts';
import { deviceUsers, stopDevice } from '../devices.ts';
import { UblkError, UblkErrorCode } from '../errors.ts';
import type { EndSignals } from './signals.ts';

/** How often a device in use is looked at, in milliseconds. */
const LOOK_MS = 1000;

/** The default limit of the wait for users of a device with recovery, in milliseconds. */
const PATIENCE_MS = 60_000;

/** How long the requests of such a device have after the end of the wait for users, in milliseconds. */
const GRACE_MS = 5000;

/** The longest delay that timers take, in milliseconds. */
const LONGEST_MS = 2 ** 31 - 1;

/** When the waits for the users of devices end. */
interface Limits {
  /** Ends the wait for users of a device without recovery: the second signal, or the given limit. */
  readonly late: AbortSignal;
  /** Ends the wait for users of a device with recovery: the second signal, or the limit. */
  readonly patience: AbortSignal;
  /** Aborts when a next server follows at once: a device with recovery is left without a wait. */
  readonly restart: AbortSignal;
  /** How long users of a device with recovery keep the device, in words. */
  readonly atMost: string;
}

/**
 * Ends the service of devices after a signal, and takes no device from its users: each device is served
 * until nobody uses the device, the second signal comes or the limit has passed. Then a device with
 * recovery is left to the next server, and another device is stopped. At a restart, devices with recovery
 * are left at once. Resolves when the kernel has been asked about all devices; `device.closed` reports
 * the end of each. Ends the process where only the end of the process leaves a device to the next server.
 *
 * @param limitMs The limit of the wait for users, in milliseconds; if absent, 60 s for devices with
 * recovery, and none for others.
 */
export async function shutDown(
  devices: readonly Device[],
  { second, restart }: EndSignals,
  limitMs?: number,
): Promise<void> {
  const within = (ms: number): AbortSignal =>
    AbortSignal.any([second, AbortSignal.timeout(Math.min(ms, LONGEST_MS))]);
  const patienceMs = limitMs ?? PATIENCE_MS;
  const limits = {
    late: limitMs === undefined ? second : within(limitMs),
    patience: within(patienceMs),
    restart,
    atMost: `${patienceMs / 1000} s`,
  };
  const left = await Promise.all(devices.map((device) => endService(device, limits)));
  const abandoned = devices.filter((_, at) => !left[at]);
  for (const { id, path } of abandoned)
    say(`${path} waits for its next server: ublk recover ${id}`);
  if (abandoned.length > 0) process.exit(0);
}

/** Whether the device has been left or stopped; otherwise the end of the process leaves the device. */
async function endService(device: Device, limits: Limits): Promise<boolean> {
  const ended = new AbortController();
  const over = device.closed.then(
    () => ended.abort(),
    () => ended.abort(),
  );
  if (!device.features.includes('USER_RECOVERY')) {
    await release(device, limits.late, ended.signal);
    return true;
  }
  const { patience, restart, atMost } = limits;
  const rest = `it is served until nobody uses it, at most ${atMost}; a second signal leaves it at once`;
  await untilUnused(device.id, AbortSignal.any([patience, restart, ended.signal]), rest);
  if (ended.signal.aborted) return true;
  const late = patience.aborted ? AbortSignal.timeout(GRACE_MS) : patience;
  return await leave(device, over, late);
}

/**
 * Leaves the device to the next server, and waits no longer than `late` for its requests.
 *
 * @param over Resolves at the end of the device.
 */
async function leave(device: Device, over: Promise<void>, late: AbortSignal): Promise<boolean> {
  const abandoned = untilAborted(late).then(() => false);
  try {
    return await Promise.race([device.quiesce().then(() => true), abandoned]);
  } catch (error) {
    if (!UblkError.is(error)) throw error;
    if (error.code === UblkErrorCode.Unsupported) return false;
    // Another process has stopped the device: `device.closed` reports the end.
    if (error.code === UblkErrorCode.Closed) return true;
    say(`${error.message}; ${device.path} is served on, a second signal ends its server`);
    return await Promise.race([over.then(() => true), abandoned]);
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  );
}

/**
 * Stops the device as soon as nobody uses the device; after `late`, whoever does.
 *
 * @param ended Aborts at the end of the device, whose number another device may have from then on.
 */
async function release(device: Device, late: AbortSignal, ended: AbortSignal): Promise<void> {
  const rest = 'it is served until nobody uses it, or a second signal takes it away';
  const told = new Set<string>();
  const over = AbortSignal.any([late, ended]);
  while (!over.aborted) {
    try {
      await stopDevice(device.id);
      return;
    } catch (error) {
      if (!UblkError.is(error)) throw error;
      // Another process has stopped the device: `device.closed` reports the end.
      if (error.code === UblkErrorCode.NoDevice) return;
      tell(`${error.message}; ${rest}`, told);
    }
    await pause(LOOK_MS, undefined, { signal: over }).catch(() => {});
    await untilUnused(device.id, over, rest, told);
  }
  if (!ended.aborted) await device.close();
}

/**
 * Waits until nobody uses the device, or `late` aborts; names the users on stderr.
 *
 * @param rest What becomes of the device, for the message.
 */
async function untilUnused(
  id: number,
  late: AbortSignal,
  rest: string,
  told = new Set<string>(),
): Promise<void> {
  while (!late.aborted) {
    const users = await deviceUsers(id).catch(() => undefined);
    if (late.aborted || users === undefined || users.found.length === 0) return;
    tell(`ublk device ${id} is in use: ${users.text}; ${rest}`, told);
    await pause(LOOK_MS, undefined, { signal: late }).catch(() => {});
  }
}

function tell(message: string, told: Set<string>): void {
  if (told.has(message)) return;
  told.add(message);
  say(message);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
