import { channel, type Channel } from 'node:diagnostics_channel';

import type { CompletionBatch } from './completions.ts';
import type { Device } from './device.ts';
import type { UblkError } from './errors.ts';

/** A message of `ublk:device.create`: the device can be opened. */
export interface CreateMessage {
  readonly device: Device;
}

/** A message of `ublk:device.end`: the service of the device has ended. */
export interface EndMessage {
  readonly device: Device;
  readonly reason: 'closed' | 'stopped' | 'quiesced' | 'failed';
  /** Present with the reason `failed`. */
  readonly error?: UblkError;
}

/** A message of `ublk:completions`: a batch of {@link Device.completions} with the device. */
export interface CompletionsMessage extends CompletionBatch {
  readonly device: Device;
}

const created: Channel = channel('ublk:device.create');
const ended: Channel = channel('ublk:device.end');
const completions: Channel = channel('ublk:completions');

/** The interval of the look for subscribers of the channel of completions. */
const LOOK_MS = 1000;

/** Open devices; the controller ends the publication of the device's completions. */
const open = new Map<Device, AbortController | undefined>();
let looking: NodeJS.Timeout | undefined;

/** The open devices of this thread. */
export function openDevices(): Iterable<Device> {
  return open.keys();
}

/** Announces a new device. */
export function announce(device: Device): void {
  open.set(device, undefined);
  looking ??= setInterval(look, LOOK_MS).unref();
  look();
  if (created.hasSubscribers) created.publish({ device } satisfies CreateMessage);
}

/** Announces the end of a device. */
export function announceEnd(message: EndMessage): void {
  open.delete(message.device);
  if (open.size === 0) {
    clearInterval(looking);
    looking = undefined;
  }
  if (ended.hasSubscribers) ended.publish(message);
}

// Node.js reports no new subscribers of a channel, and watching slows a device down, so a timer looks
// for subscribers.
function look(): void {
  for (const [device, publication] of open) {
    if (completions.hasSubscribers && !publication) {
      const stop = new AbortController();
      open.set(device, stop);
      void publish(device, stop.signal);
    } else if (!completions.hasSubscribers && publication) {
      open.set(device, undefined);
      publication.abort();
    }
  }
}

async function publish(device: Device, signal: AbortSignal): Promise<void> {
  try {
    for await (const batch of device.completions({ signal })) {
      completions.publish({ device, ...batch } satisfies CompletionsMessage);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
