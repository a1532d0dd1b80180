import { resolve } from 'node:path';

import { listen } from '../../control/server.ts';
import { messageOf, UblkError } from '../../errors.ts';
import { parseAddress } from '../../metrics/address.ts';
import { loadConfig, loadService } from '../../service/load.ts';
import { observe } from '../../service/observe.ts';
import { plan, type ServiceStep } from '../../service/plan.ts';
import { watchStalls } from '../../service/stalls.ts';
import { Service, type ServiceResult } from '../../service/service.ts';
import { isInBackground, runInBackground } from '../background.ts';
import { answer, table, type OutputFlags } from '../output.ts';
import { writePidFile } from '../pid-file.ts';
import { ExitStatus, report } from '../report.ts';
import { reloads, type ReloadReport, type Reloads } from '../reloads.ts';
import { Scrapes } from '../scrapes.ts';
import { endOnSignal, readyData, reportEnd } from '../serving.ts';
import { hearSignals, type EndSignals } from '../signals.ts';
import { serviceManager } from '../systemd/manager.ts';
import { notices } from '../systemd/notices.ts';
import { feedWatchdog } from '../systemd/watchdog.ts';

/** The flags of `ublk serve`. */
export interface ServeFlags extends OutputFlags {
  readonly dryRun?: true;
  readonly background?: true;
  readonly pidFile?: string;
  /** In seconds. */
  readonly stopAfter?: number;
  /** The path of the control socket; `false` for none. */
  readonly control?: string | boolean;
  readonly controlGroup?: string;
  /** In seconds. */
  readonly stallAfter?: number;
  /** The address for scrapes, in place of that of the configuration. */
  readonly metrics?: string;
}

/** `ublk serve CONFIG` */
export async function serve(path: string, flags: ServeFlags): Promise<void> {
  const { devices: config, metrics: declared } = await loadService(path);
  if (flags.dryRun) {
    const steps = plan(config, await observe());
    await answer(flags, steps, () => table(steps.map(row), ['DEVICE', 'ACTION', 'WHY']));
    return;
  }
  if (flags.metrics !== undefined) parseAddress(flags.metrics, '--metrics');
  const signals = hearSignals(['SIGINT', 'SIGTERM']);
  if (flags.background && !isInBackground()) return runInBackground(signals.first);
  const manager = serviceManager();
  await using service = new Service();
  const noted = notices(service, signals.first, manager);
  using _watchdog = manager && feedWatchdog(manager);
  const ended = serviceEnd(service, signals);
  endOnSignal(() => [...service.devices.values()], signals, flags.stopAfter);
  await using scrapes = new Scrapes(service, flags.metrics);
  await scrapes.listen(declared);
  await using again = reloads(service, path, signals.first, {
    ...reportReload(path, flags),
    ...noted,
    listen: (metrics) => scrapes.listen(metrics),
  });
  await using _control = await openControl(service, path, again, flags);
  using _stalls = watchStalls(service, flags.stallAfter ?? STALL_AFTER);
  tellStalls(service);
  const results = await service.apply(config, signals.first);
  tell(results, flags);
  await using _pidFile = await writePidFile(flags.pidFile);
  announce(service, results, flags);
  noted.ready();
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

/** After how many seconds without a completion a device counts as stalled, by default. */
const STALL_AFTER = 30;

/** People read on stderr which device stands still, and what it waits for. */
function tellStalls(service: Service): void {
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  service.on('stall', (name, { path }, { inFlight, seconds, serves = 'its target' }) => {
    say(
      `${name} (${path}): no request has completed for ${seconds} s, ${inFlight} wait for ${serves}`,
    );
  });
  service.on('resume', (name, { path }) => say(`${name} (${path}): requests complete again`));
}

/** What stderr says of a reload. */
function reportReload(path: string, flags: ServeFlags): Pick<ReloadReport, 'done' | 'failed'> {
  const again = (): void => void process.stderr.write(`${path} has been read again\n`);
  return {
    done: (results) => (tell(results, flags), again()),
    failed: (error) => (report(error, flags.json === true), again()),
  };
}

/** The control socket of the service; none, where nobody has named one and the default one is taken. */
async function openControl(
  service: Service,
  path: string,
  { reload }: Reloads,
  { control, controlGroup: group }: ServeFlags,
): Promise<AsyncDisposable> {
  if (control === false) return { [Symbol.asyncDispose]: async () => {} };
  const config = resolve(path);
  const plan = async (): Promise<ServiceStep[]> => await service.planFor(await loadConfig(path));
  const controlled = { service, since: new Date().toISOString(), config, reload, plan };
  const socket = typeof control === 'string' ? resolve(control) : undefined;
  try {
    return await listen(controlled, { path: socket, group });
  } catch (error) {
    if (!UblkError.is(error) || socket !== undefined || group !== undefined) throw error;
    process.stderr.write(`no control socket: ${error.message}; ublk serve --control PATH\n`);
    return { [Symbol.asyncDispose]: async () => {} };
  }
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
