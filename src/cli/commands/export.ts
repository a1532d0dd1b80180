import type { Device } from '../../device.ts';
import { exportNbd, type NbdExport } from '../../nbd-export.ts';
import { formatSize } from '../../size.ts';
import type { Target } from '../../targets/index.ts';
import { parseThrottle } from '../../throttle.ts';
import { isInBackground, runInBackground } from '../background.ts';
import { writePidFile } from '../pid-file.ts';
import { reportEnd, tellStalled } from '../serving.ts';
import { hearSignals, type EndSignals } from '../signals.ts';
import { mergeOf, watchdogOf, type AddFlags } from './add.ts';

/** The flags of `ublk export`, beside those shared with `ublk add`. */
interface ExportFlags extends AddFlags {
  readonly socket?: string;
  readonly port?: number;
  readonly host?: string;
  readonly readOnly?: true;
  readonly description?: string;
  readonly connections?: number;
  /** The folder with the certificates. */
  readonly tls?: string;
  readonly verifyClients?: boolean;
}

/** `ublk export TARGET`: serves a target to clients of NBD until a signal. */
export async function exportUntilEnd(
  target: Target | undefined,
  what: string,
  flags: ExportFlags,
): Promise<void> {
  if (target === undefined) return;
  const signals = hearSignals();
  if (flags.background && !isInBackground()) return runInBackground(signals.first);
  signals.second.addEventListener('abort', () => process.exit(1));
  await using exported = await open(target, flags);
  tellStalled(exported);
  endOnSignal(exported, signals);
  await using _pidFile = await writePidFile(flags.pidFile);
  announce(exported, what, flags);
  await reportEnd(exported, signals);
}

function open(target: Target, flags: ExportFlags): Promise<NbdExport> {
  const { socket, host, port, name, description, connections, queues, depth, affinity } = flags;
  const watchdog = watchdogOf(flags);
  const { tls: certificates, verifyClients } = flags;
  return exportNbd(
    target,
    { socket, host, port },
    {
      name,
      description,
      readOnly: flags.readOnly,
      connections,
      tls: certificates === undefined ? undefined : { certificates, verifyClients },
      queues,
      depth,
      maxIoBytes: flags.maxIo,
      spinUsec: flags.spin,
      affinity,
      throttle: flags.throttle && parseThrottle(flags.throttle),
      watchdog,
      merge: mergeOf(flags),
    },
  );
}

/** Requests under way end first. */
function endOnSignal(exported: Device, { first }: EndSignals): void {
  const end = (): void => {
    exported.close().catch((error: unknown) => {
      process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
      process.exit(1);
    });
  };
  if (first.aborted) end();
  else first.addEventListener('abort', end);
}

/** Scripts wait for the line on stdout; people read the one on stderr. */
function announce(exported: NbdExport, what: string, flags: ExportFlags): void {
  const { uri, size, readOnly, logicalBlockSize, queues, depth } = exported;
  const access = readOnly ? 'read-only' : 'read-write';
  process.stderr.write(`${uri} serves ${what} (${formatSize(size)}, ${access}); Ctrl-C ends it\n`);
  const data = { uri, pid: process.pid, size, logicalBlockSize, readOnly, queues, depth };
  process.stdout.write(`${flags.json ? JSON.stringify(data) : uri}\n`);
}
