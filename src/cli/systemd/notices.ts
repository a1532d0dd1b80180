import type { Service } from '../../service/service.ts';
import type { Manager } from './manager.ts';

/** What a service manager hears of a service. */
export interface Notices {
  /** A reload begins. */
  reloading(): void;
  /** A reload has ended, the first one too: each device can be opened, or has failed. */
  ready(): void;
}

/**
 * Reports the state of a service to the service manager: after each reload, and whenever a device
 * begins or ends, stands still or goes on; and once that the service stops.
 *
 * @param stopping Aborts when the service begins to end.
 */
export function notices(
  service: Service,
  stopping: AbortSignal,
  manager: Manager | undefined,
): Notices {
  if (manager === undefined) return { reloading: () => {}, ready: () => {} };
  let isReady = false;
  const stalled = new Set<string>();
  const status = (): string => `STATUS=${inWords(service, stopping.aborted, [...stalled])}`;
  const update = (): void => {
    if (isReady) manager.tell(status());
  };
  service.on('serve', update);
  service.on('end', (name) => (stalled.delete(name), update()));
  service.on('stall', (name) => (stalled.add(name), update()));
  service.on('resume', (name) => (stalled.delete(name), update()));
  stopping.addEventListener('abort', () => manager.tell('STOPPING=1', status()), { once: true });
  return {
    reloading: () => {
      const now = process.hrtime.bigint() / 1000n; // CLOCK_MONOTONIC
      if (isReady) manager.tell('RELOADING=1', `MONOTONIC_USEC=${now}`);
    },
    ready: () => {
      // A service without a device is about to end, and its exit status says how.
      if (stopping.aborted || (!isReady && service.devices.size === 0)) return;
      isReady = true;
      manager.tell('READY=1', status());
    },
  };
}

function inWords(service: Service, isEnding: boolean, stalled: readonly string[]): string {
  const served = service.devices.size;
  const failed = service.results.flatMap(({ name, error }) => (error ? [name] : []));
  const kept = `${served} ${served === 1 ? 'device' : 'devices'} served`;
  const parts = [
    isEnding ? `ending, ${kept}` : kept,
    failed.length === 0 ? '' : `${failed.length} failed: ${failed.join(', ')}`,
    stalled.length === 0 ? '' : `no completions: ${stalled.join(', ')}`,
  ];
  return parts.filter(Boolean).join('; ');
}
