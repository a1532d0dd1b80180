import { toUblkError, UblkError, UblkErrorCode } from '../errors.ts';
import { getDeviceInfo } from '../devices.ts';
import type { DeviceInfo } from '../info.ts';
import { checkRecovery } from '../recover.ts';
import { recall } from '../records/recall.ts';
import type { HandedDevice, MessageOf } from '../control/wire.ts';
import type { NamedOptions } from '../service/config.ts';
import { observe } from '../service/observe.ts';
import { changesBy, plan, type ServiceAction, type ServiceStep } from '../service/plan.ts';
import { servingOf } from '../service/service.ts';

/** One step of a hand-over, about one device: `take-over`, or what the reload after the hand-over does. */
export interface HandOverStep extends Omit<ServiceStep, 'action'> {
  readonly action: ServiceAction | 'take-over';
  /** Why the device cannot be taken over. */
  readonly error?: UblkError | undefined;
}

/** A device that the new server can take over. */
export interface Prepared extends HandedDevice {
  readonly options: NamedOptions;
  readonly info: DeviceInfo;
}

/** What a new server has found out while the old server serves. */
export interface Preparation {
  readonly devices: readonly Prepared[];
  /** All devices of the old server and of the configuration. */
  readonly steps: readonly HandOverStep[];
}

/** Opens and compares the targets of all devices of a service, and changes nothing. */
export async function prepare(
  { pid, devices }: MessageOf<'hello'>,
  config: readonly NamedOptions[],
): Promise<Preparation> {
  const seen = await observe();
  const prepared: Prepared[] = [];
  const prepareOne = async ({ name, id, states }: HandedDevice): Promise<HandOverStep> => {
    const declared = config.find((one) => one.name === name);
    const found = seen.find(({ info }) => info.id === id);
    const { taken, remains } =
      declared && found ? changesBy(declared, found) : { taken: [], remains: [] };
    const why = [
      `process ${pid} serves the device`,
      ...taken,
      ...(declared ? [] : ['the configuration does not name the device']),
    ];
    const step = { name, action: 'take-over', id, remains } as const;
    try {
      const info = found?.info ?? (await getDeviceInfo(id));
      const options = declared ?? recorded(name, info);
      const isCompared = await check(info, options, states);
      prepared.push({ name, id, options, info });
      if (!isCompared) why.push('the files are compared when the old server has left');
      return { ...step, why: why.join('; ') };
    } catch (thrown) {
      return { ...step, why: why.join('; '), error: about(name, toUblkError(thrown)) };
    }
  };
  const inOrder = [...devices].sort((a, b) => a.id - b.id);
  const steps = await Promise.all(inOrder.map(prepareOne));
  const names = new Set(devices.map(({ name }) => name));
  const others = plan(config, seen).filter(({ name }) => !names.has(name));
  return { devices: prepared, steps: [...steps, ...others] };
}

async function check(info: DeviceInfo, options: NamedOptions, states?: number): Promise<boolean> {
  const { recovery, features } = info;
  if (recovery === undefined) {
    const message = `the device was created without recovery, so that no other server can serve it`;
    throw new UblkError(UblkErrorCode.Unsupported, message, {
      hint: 'stop the device (ublk service stop), and declare recovery = "reissue"',
    });
  }
  if (!features.includes('QUIESCE')) {
    const message = 'the kernel lets no server leave this device (QUIESCE, Linux 6.16)';
    const hint = 'stop the service and start the new one: the device waits meanwhile';
    throw new UblkError(UblkErrorCode.Unsupported, message, { hint });
  }
  return await checkRecovery(info, servingOf(options), states);
}

/** The options of a device that the configuration does not name, as the old server has recorded. */
function recorded(name: string, info: DeviceInfo): NamedOptions {
  const { recorded } = recall(info, {});
  return { ...recorded, name };
}

/** The error for the first device that cannot be taken over, if any. */
export function refusalOf(steps: readonly HandOverStep[]): UblkError | undefined {
  const failed = steps.flatMap(({ name, error }) => (error ? [{ name, error }] : []));
  const [first, ...others] = failed;
  if (first === undefined) return undefined;
  const { code, message, hint } = first.error;
  const names = others.map(({ name }) => name).join(', ');
  const more = names === '' ? '' : `; nor can: ${names}`;
  const text = `${message}${more}; the old server goes on`;
  return new UblkError(code, text, { hint, cause: first.error });
}

/** An error of one device of a hand-over. */
export function about(name: string, error: UblkError): UblkError {
  const { code, message, hint } = error;
  const text = `device '${name}' cannot be taken over: ${message}`;
  return new UblkError(code, text, { hint, cause: error });
}
