import type { Device } from '../device.ts';
import { readDiskStat } from '../disk-stat.ts';
import { readNote } from '../notes.ts';
import { tell } from '../tell.ts';
import type { Service } from './service.ts';

/** A device on which requests wait and none completes. */
export interface Stall {
  /** The number of requests in flight. */
  readonly inFlight: number;
  /** How long no request has completed, in whole seconds. */
  readonly seconds: number;
  /** The target of the device in words, for example the path of its file. */
  readonly serves?: string | undefined;
}

/** How often the devices are looked at, in milliseconds. */
const LOOK_MS = 1000;

/** What the kernel has counted of a device. */
export interface Progress {
  readonly inFlight: number;
  readonly completed: number;
}

interface Watched {
  completed: number;
  /** When a request was last seen to complete, or none to be in flight, in ms. */
  since: number;
  isStalled: boolean;
}

/**
 * Notices devices of a service on which requests are in flight and none completes for `seconds`: a
 * backing store that does not answer, or a server that stands still. The service emits `stall`, and
 * `resume` at the next completion. The kernel's own counters are looked at each second, so nothing is
 * added to the way of a request; a request that is stuck while others complete is not noticed, nor is
 * anything while the setting `iostats` of the device is 0.
 */
export function watchStalls(
  service: Service,
  seconds: number,
  read: (device: Device) => Progress | undefined = readProgress,
): Disposable {
  const watched = new Map<Device, Watched>();
  const look = (): void => {
    const now = performance.now();
    const devices = new Map([...service.devices].map(([name, device]) => [device, name]));
    for (const device of watched.keys()) if (!devices.has(device)) watched.delete(device);
    for (const [device, name] of devices) {
      const progress = read(device);
      if (progress === undefined) continue;
      const { inFlight, completed } = progress;
      const before = watched.get(device) ?? { completed, since: now, isStalled: false };
      watched.set(device, before);
      if (inFlight === 0 || completed !== before.completed) {
        if (before.isStalled) tell(service, 'resume', name, device);
        Object.assign(before, { completed, since: now, isStalled: false });
        continue;
      }
      const waited = Math.floor((now - before.since) / 1000);
      if (waited < seconds || before.isStalled) continue;
      before.isStalled = true;
      const serves = readNote(device.toJSON())?.serves;
      tell(service, 'stall', name, device, { inFlight, seconds: waited, serves });
    }
  };
  const timer = setInterval(look, LOOK_MS).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** The kernel's counters; nothing for a device that is about to go. */
function readProgress({ id }: Device): Progress | undefined {
  const stat = readDiskStat(id);
  if (stat === undefined) return undefined;
  const { inFlight, reads, writes, discards, flushes } = stat;
  return { inFlight, completed: reads + writes + discards + flushes };
}
