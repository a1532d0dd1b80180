import { messageOf, UblkError } from '../../errors.ts';
import { loadConfig } from '../../service/load.ts';
import { observe } from '../../service/observe.ts';
import { plan, type ServiceStep } from '../../service/plan.ts';
import { Service, type ServiceResult } from '../../service/service.ts';
import { isInBackground, runInBackground } from '../background.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { writePidFile } from '../pid-file.ts';
import { ExitStatus, report } from '../report.ts';
import { endOnSignal, readyData, reportEnd } from '../serving.ts';
import { hearSignals, type EndSignals } from '../signals.ts';

/** The flags of `ublk serve`. */
export interface ServeFlags extends OutputFlags {
  readonly dryRun?: true;
  readonly background?: true;
  readonly pidFile?: string;
  /** In seconds. */
  readonly stopAfter?: number;
}

/** `ublk serve CONFIG` */
export async function serve(path: string, flags: ServeFlags): Promise<void> {
  const config = await loadConfig(path);
  if (flags.dryRun) {
    const steps = plan(config, await observe());
    await answer(flags, steps, () => table(steps.map(row), ['DEVICE', 'ACTION', 'WHY']));
    return;
  }
  const signals = hearSignals(['SIGINT', 'SIGTERM']);
  if (flags.background && !isInBackground()) return runInBackground(signals.first);
  await using service = new Service();
  const ended = serviceEnd(service, signals);
  const limitMs = flags.stopAfter === undefined ? undefined : flags.stopAfter * 1000;
  endOnSignal(() => [...service.devices.values()], signals, limitMs);
  const results = await service.apply(config, signals.first);
  tell(results, flags);
  await using _reloads = reloadOnHangUp(service, path, flags, signals);
  await using _pidFile = await writePidFile(flags.pidFile);
  announce(service, results, flags);
  await ended.whenEmpty();
}

/** Scripts wait for the lines on stdout: a device each, or all as one line of JSON. */
function announce(service: Service, results: readonly ServiceResult[], flags: ServeFlags): void {
  const served = results.flatMap(({ name }) => {
    const device = service.devices.get(name);
    return device === undefined ? [] : [{ name, device }];
  });
  const devices = served.map(({ name, device }) => readyData(device, name));
  const steps = results.map(({ error, ...step }) => (error ? { ...step, error } : step));
  const lines = served.map(({ name, device }) => `${name} ${device.path}`);
  const text = flags.json ? JSON.stringify({ devices, steps }) : lines.join('\n');
  process.stdout.write(`${text || 'no device is served here'}\n`);
}

/** People read on stderr what was done with each device, and what could not be done. */
function tell(results: readonly ServiceResult[], flags: OutputFlags): void {
  for (const { error, ...step } of results) {
    if (error === undefined) process.stderr.write(`${row(step).join(': ')}\n`);
    else {
      report(error, flags.json === true);
      process.exitCode = ExitStatus.Failed;
    }
  }
}

function row({ name, action, why, remains }: ServiceStep): string[] {
  const left =
    remains.length === 0 ? [] : [`unchanged while the device exists: ${remains.join('; ')}`];
  return [name, action, [why, ...left].join('; ')];
}

/** Reads the configuration again at SIGHUP; a wrong one changes nothing. */
function reloadOnHangUp(
  service: Service,
  path: string,
  flags: ServeFlags,
  { first }: EndSignals,
): AsyncDisposable {
  let last: Promise<void> = Promise.resolve();
  const reload = async (): Promise<void> => {
    if (first.aborted) return;
    try {
      tell(await service.apply(await loadConfig(path), first), flags);
    } catch (error) {
      if (!UblkError.is(error)) throw error;
      report(error, flags.json === true);
    }
    process.stderr.write(`${path} has been read again\n`);
  };
  const hear = (): void => void (last = last.then(reload));
  process.on('SIGHUP', hear);
  return {
    [Symbol.asyncDispose]: async () => {
      process.off('SIGHUP', hear);
      await last;
    },
  };
}

/** Tells the end of each device, and knows when the service has none left. */
function serviceEnd(service: Service, signals: EndSignals): { whenEmpty(): Promise<void> } {
  const reports = new Set<Promise<void>>();
  service.on('end', (name, device, error) => {
    const told = reportEnd(device, signals).catch(() => {
      process.exitCode = ExitStatus.Failed;
      process.stderr.write(`${name} (${device.path}) failed: ${messageOf(error)}\n`);
    });
    reports.add(told);
  });
  const whenEmpty = async (): Promise<void> => {
    while (service.devices.size > 0) {
      await new Promise<void>((resolve) => void service.once('end', () => resolve()));
      // A reload may be about to make it anew.
      await service.settled();
    }
    await Promise.all(reports);
  };
  return { whenEmpty };
}
