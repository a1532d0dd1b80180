import { resolve } from 'node:path';

import type { HandOverSides } from '../control/routes.ts';
import { listen } from '../control/server.ts';
import { messageOf, UblkError } from '../errors.ts';
import type { HandOverStep } from '../handover/prepare.ts';
import { loadConfig, type DeclaredService } from '../service/load.ts';
import type { ServiceStep } from '../service/plan.ts';
import { Service, type ServiceResult } from '../service/service.ts';
import { retryFailed } from '../service/retries.ts';
import { watchStalls } from '../service/stalls.ts';
import type { OutputFlags } from './output.ts';
import { writePidFile } from './pid-file.ts';
import { reloads, type ReloadReport, type Reloads } from './reloads.ts';
import { ExitStatus, report } from './report.ts';
import { Scrapes } from './scrapes.ts';
import { Succession, type Takeover } from './succession.ts';
import { endOnSignal, readyData, reportEnd } from './serving.ts';
import type { EndSignals } from './signals.ts';
import { managerAt, serviceManager, type Manager } from './systemd/manager.ts';
import { notices } from './systemd/notices.ts';
import { feedWatchdog } from './systemd/watchdog.ts';

/** The flags of `ublk serve` that the next server of a hand-over takes over. */
export interface ServiceFlags {
  /** An absolute path. */
  readonly pidFile?: string | undefined;
  /** In seconds. */
  readonly stopAfter?: number | undefined;
  /** The path of the control socket; `false` for none. */
  readonly control?: string | boolean | undefined;
  readonly controlGroup?: string | undefined;
  /** In seconds. */
  readonly stallAfter?: number | undefined;
  /** The address for scrapes, in place of that of the configuration. */
  readonly metrics?: string | undefined;
}

/** The flags of `ublk serve`. */
export interface ServeFlags extends ServiceFlags, OutputFlags {
  readonly dryRun?: true;
  readonly background?: true;
}

type Result = ServiceResult | HandOverStep;

/** Serves what the file at `path` declares until a signal; with an old server, its devices first. */
export async function runService(
  path: string,
  declared: DeclaredService,
  flags: ServeFlags,
  signals: EndSignals,
  takeover?: Takeover,
): Promise<void> {
  const { first: signal } = signals;
  await using service = new Service();
  const ended = serviceEnd(service, signals);
  endOnSignal(() => [...service.devices.values()], signals, flags.stopAfter);
  await using succession = takeover && new Succession(takeover, service);
  const taken = await succession?.take(signal);
  const manager = takeover ? managerAt(takeover.manager) : serviceManager();
  const noted = notices(service, signal, manager);
  await using scrapes = new Scrapes(service, flags.metrics);
  await scrapes.listen(declared.metrics);
  await using again = reloads(service, path, signal, {
    ...reportReload(path, flags),
    ...noted,
    listen: (metrics) => scrapes.listen(metrics),
  });
  const sides: HandOverSides = {
    serving: { flags: kept(flags), manager: manager?.place },
    ending: signal,
    close: () => scrapes.close(),
    reopen: () => scrapes.reopen(),
    done: (pid) => leaveTo(pid, manager),
  };
  await using _control = await openControl(service, path, again, flags, sides);
  using _retries = retryFailed(service, signal, ({ name, error, afterMs }) => {
    const { message } = error;
    process.stderr.write(
      `${name}: ${message}; tried again in ${afterMs / 1000} s, then less often\n`,
    );
  });
  using _stalls = watchStalls(service, flags.stallAfter ?? STALL_AFTER);
  tellStalls(service);
  const created = succession ? undefined : await service.apply(declared.devices, signal);
  await using _pidFile = await writePidFile(flags.pidFile);
  await succession?.done();
  using _watchdog = manager && feedWatchdog(manager);
  const applied = created ?? (await service.apply(declared.devices, signal));
  const results = taken ? afterTakeOver(taken, applied) : applied;
  tell(results, flags);
  announce(service, results, flags);
  noted.ready();
  await ended.whenEmpty();
}

/** Scripts wait for the lines on stdout: a device each, or all as one line of JSON. */
function announce(service: Service, results: readonly Result[], flags: ServeFlags): void {
  const names = new Set(results.map(({ name }) => name));
  const served = [...names].flatMap((name) => {
    const device = service.devices.get(name);
    return device === undefined ? [] : [{ name, device }];
  });
  const devices = served.map(({ name, device }) => readyData(device, name));
  const steps = results.map(({ error, ...step }) => (error ? { ...step, error } : step));
  const lines = served.map(({ name, device }) => `${name} ${device.path}`);
  const text = flags.json ? JSON.stringify({ devices, steps }) : lines.join('\n');
  process.stdout.write(`${text || 'no device is served here'}\n`);
}

/** The steps of a hand-over and of the reload after the hand-over, which keeps most devices. */
function afterTakeOver(taken: readonly Result[], applied: readonly Result[]): readonly Result[] {
  const names = new Set(taken.map(({ name }) => name));
  return [...taken, ...applied.filter((one) => one.action !== 'keep' || !names.has(one.name))];
}

/** People read on stderr what was done with each device, and what could not be done. */
function tell(results: readonly Result[], flags: OutputFlags): void {
  for (const { error, ...step } of results) {
    if (error === undefined) process.stderr.write(`${row(step).join(': ')}\n`);
    else {
      report(error, flags.json === true);
      process.exitCode = ExitStatus.Failed;
    }
  }
}

/** A step as the words of a row: the device, the action, why. */
export function row({ name, action, why, remains }: Result): string[] {
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
  service.on('stalled', (name, _, { message }) => say(`${name}: ${message}`));
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
  handOver: HandOverSides,
): Promise<AsyncDisposable> {
  if (control === false) return { [Symbol.asyncDispose]: async () => {} };
  const config = resolve(path);
  const plan = async (): Promise<ServiceStep[]> => await service.planFor(await loadConfig(path));
  const since = new Date().toISOString();
  const controlled = { service, since, config, reload, plan, handOver };
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
    const told = reportEnd(device, signals, service.handingOver).catch(() => {
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

/** What the next server of a hand-over needs to know of this one. */
function kept({ pidFile, stopAfter, stallAfter, metrics }: ServeFlags): ServiceFlags {
  const path = pidFile === undefined ? undefined : resolve(pidFile);
  return { pidFile: path, stopAfter, stallAfter, metrics };
}

/** The service manager may take the end of this process for the end of the service otherwise. */
function leaveTo(pid: number, manager: Manager | undefined): void {
  process.stderr.write(`process ${pid} serves the devices from now on\n`);
  manager?.tell(`MAINPID=${pid}`);
}
