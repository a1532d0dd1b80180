import { channel, type Channel } from 'node:diagnostics_channel';

import type { CompletionBatch } from './completions.ts';
import type { Device } from './device.ts';
import type { UblkError } from './errors.ts';

/** A message of `ublk:device.create`: the device can be opened. */
export interface CreateMessage {
  readonly device: Device;
}

/** A message of `ublk:device.end`: the device is gone. */
export interface EndMessage {
  readonly device: Device;
  readonly reason: 'closed' | 'stopped' | 'quiesced' | 'failed';
  /** With `failed`. */
  readonly error?: UblkError;
}

/** A message of `ublk:completions`: what {@link Device.completions} gives. */
export interface CompletionsMessage extends CompletionBatch {
  readonly device: Device;
}

const created: Channel = channel('ublk:device.create');
const ended: Channel = channel('ublk:device.end');
const completions: Channel = channel('ublk:completions');

/** How often it is looked whether somebody has subscribed to completions. */
const LOOK_MS = 1000;

/** Devices that are open, and what ends the publication of their completions. */
const open = new Map<Device, AbortController | undefined>();
let looking: NodeJS.Timeout | undefined;

/** A device can be opened. */
export function announce(device: Device): void {
  open.set(device, undefined);
  looking ??= setInterval(look, LOOK_MS).unref();
  look();
  if (created.hasSubscribers) created.publish({ device } satisfies CreateMessage);
}

/** It is gone. */
export function announceEnd(message: EndMessage): void {
  open.delete(message.device);
  if (open.size === 0) {
    clearInterval(looking);
    looking = undefined;
  }
  if (ended.hasSubscribers) ended.publish(message);
}

// Nobody is told when a channel gets a subscriber, and a device that nobody watches is to be
// served as fast as it can be.
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
