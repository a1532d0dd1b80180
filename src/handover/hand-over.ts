import { checkAbsolutePath, checkKeys } from '../check.ts';
import { defaultSocket } from '../control/protocol.ts';
import { checkProgramConfig, type ServiceConfig } from '../service/config.ts';
import { Service } from '../service/service.ts';
import type { Predecessor } from './predecessor.ts';
import type { HandOverStep } from './prepare.ts';

/** Options of {@link planHandOver}. */
export interface PlanHandOverOptions {
  /**
   * The control socket of the old server, absolute.
   * @default that of {@link openControl}
   */
  readonly path?: string | undefined;
}

/** Options of {@link handOver}. */
export interface HandOverOptions extends PlanHandOverOptions {
  /** Gives the hand-over up: the old server takes the devices back. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Takes over all devices of a running service, `ublk serve` or a program with {@link openControl}, while
 * clients use the devices (Linux 6.16). A request waits until its device has changed the server, and none
 * fails. Version of Node.js, version of this package and code of the targets may differ from those of the
 * old server.
 *
 * Every target is opened and compared before the old server leaves a device. If one of the devices cannot be
 * taken over, the old server takes all devices back. If the old server is killed meanwhile, the new server
 * serves all devices; if the new server is killed, the old server does.
 *
 * The state of a handler's JavaScript travels if the handler has {@link Handler.suspend} and
 * {@link Handler.resume}; other handlers start anew.
 * Devices of the old server that `config` does not name are taken over as recorded, then stopped unless a
 * client uses the device, as by {@link Service.reload}. The old program's {@link Service} has no device
 * any more and emits `handOver`; its control socket is closed, and the new program can open its own at the
 * same path.
 *
 * @example
 * const service = await handOver(config);
 * await using control = await openControl(service);
 *
 * @throws {UblkError} and changes nothing: `ERR_UBLK_NO_SERVICE`, `ERR_UBLK_PERMISSION`;
 * `ERR_UBLK_INVALID_ARGUMENT` for a wrong configuration; `ERR_UBLK_UNSUPPORTED` for a device without
 * `recovery`, and before Linux 6.16; the errors of {@link recoverDevice} for the first device that cannot be
 * taken over. Rejects with `signal.reason` after an abort.
 */
export async function handOver(
  config: ServiceConfig,
  options: HandOverOptions = {},
): Promise<Service> {
  checkKeys(options, 'the options of handOver()', ['path', 'signal']);
  const { path = defaultSocket(), signal = new AbortController().signal } = options;
  const wanted = checkProgramConfig(config);
  const { prepare, refusalOf } = await import('./prepare.ts');
  const predecessor = await connect(checkAbsolutePath(path, 'path'));
  const service = new Service();
  try {
    const { steps, devices } = await prepare(predecessor.hello, wanted);
    const refusal = refusalOf(steps);
    if (refusal) throw refusal;
    await predecessor.take(service, devices, signal);
    await predecessor.done();
  } catch (error) {
    await predecessor.giveBack(service, error);
    throw error;
  }
  await service.apply(wanted, signal);
  return service;
}

/**
 * The steps that {@link handOver} would take: opens and compares every target, and changes nothing. A step
 * for a device that cannot be taken over has an `error`.
 *
 * @throws {UblkError} As {@link handOver}, but for the errors of single devices.
 */
export async function planHandOver(
  config: ServiceConfig,
  options: PlanHandOverOptions = {},
): Promise<readonly HandOverStep[]> {
  checkKeys(options, 'the options of planHandOver()', ['path']);
  const wanted = checkProgramConfig(config);
  const path = checkAbsolutePath(options.path ?? defaultSocket(), 'path');
  const { prepare } = await import('./prepare.ts');
  const predecessor = await connect(path);
  try {
    return (await prepare(predecessor.hello, wanted)).steps;
  } finally {
    predecessor.leave();
  }
}

async function connect(path: string): Promise<Predecessor> {
  const { Predecessor } = await import('./predecessor.ts');
  return await Predecessor.connect(path);
}
