import type { Device } from '../device.ts';
import type { DeviceStats } from '../info.ts';
import { latencyPercentile } from '../latencies.ts';
import { formatSize } from '../size.ts';
import { shutDown } from './shutdown.ts';
import type { EndSignals } from './signals.ts';

/**
 * Lets the first signal end the service of the devices that `served` names at that moment.
 *
 * @param stopAfter The limit of the wait for users, in seconds: see {@link shutDown}.
 */
export function endOnSignal(
  served: () => readonly Device[],
  signals: EndSignals,
  stopAfter?: number,
): void {
  const limitMs = stopAfter === undefined ? undefined : stopAfter * 1000;
  signals.first.addEventListener('abort', () => {
    void shutDown(served(), signals, limitMs).catch(giveUp);
  });
}

/**
 * Waits for the end of a device, and says on stderr how the device ended, what was done, and, unless the
 * device is being handed over, who can serve the device next.
 */
export async function reportEnd(
  device: Device,
  { first }: EndSignals,
  isHandedOver = false,
): Promise<void> {
  const reason = await device.closed;
  const ended = reason === 'stopped' && first.aborted ? 'closed' : reason;
  process.stderr.write(`${device.path} ${ended}: ${summary(device.stats())}\n`);
  if (reason === 'quiesced' && !isHandedOver) process.stderr.write(`${nextServer(device)}\n`);
}

/** Says on stderr which requests and threads the watchdog of a device reports. */
export function tellStalled(device: Device): void {
  device.on('stalled', ({ message }) => void process.stderr.write(`${message}\n`));
}

/** A device that has become ready, in words for people. */
export function readyText(device: Device, what: string, isInBackground = false): string {
  const { id, path, size, readOnly, queues, depth, buffers } = device;
  const modes = [buffers.mode, buffers.userCopy && 'user-copy', buffers.shared && 'shared'];
  const access = readOnly ? 'read-only' : 'read-write';
  const shape = `${formatSize(size)}, ${access}, ${queues} x ${depth} requests`;
  const ends = isInBackground ? `ublk stop ${id} ends it` : `Ctrl-C or ublk stop ${id} ends it`;
  return `${path} serves ${what} (${shape}, buffers: ${modes.filter(Boolean).join(', ')}); ${ends}`;
}

/** A device that has become ready, for scripts. */
export function readyData(device: Device, name?: string): object {
  const { id, path, size, logicalBlockSize, readOnly, queues, depth } = device;
  const { maxIoBytes, buffers, features } = device;
  const shown = {
    name,
    id,
    path,
    pid: process.pid,
    size,
    logicalBlockSize,
    readOnly,
    queues,
    depth,
  };
  return { ...shown, maxIoBytes, buffers, features };
}

function nextServer({ id, path }: Device): string {
  return `${path} waits for its next server: ublk recover ${id}; ublk delete ${id} removes it`;
}

function summary({ total, latencies }: DeviceStats): string {
  const { reads, writes, flushes, readBytes, writeBytes, zeroCopyBytes, copiedBytes } = total;
  const measured = Object.entries(latencies ?? {}).filter(([, { count }]) => count > 0);
  return [
    `${reads} reads (${formatSize(readBytes)})`,
    `${writes} writes (${formatSize(writeBytes)})`,
    `${flushes} flushes`,
    `${formatSize(zeroCopyBytes)} zero-copy`,
    `${formatSize(copiedBytes)} copied`,
    ...measured.map(([kind, histogram]) => {
      const [half, most] = [50, 99].map((percent) => latencyPercentile(histogram, percent) / 1000);
      return `${kind} p50 ${Math.round(half!)} µs, p99 ${Math.round(most!)} µs`;
    }),
  ].join(', ');
}

/** The kernel does not let go of a device, so the process cannot end in good order. */
function giveUp(error: unknown): never {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
