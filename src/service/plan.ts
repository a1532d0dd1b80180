import { ONCE } from '../records/plain.ts';
import { wholeTarget } from '../records/record.ts';
import { RECALLED_KEYS } from '../serving.ts';
import { formatSize } from '../size.ts';
import type { NamedOptions } from './config.ts';
import {
  differences,
  resizedText,
  wantedSize,
  type Comparable,
  type Difference,
} from './differences.ts';
import type { SeenDevice } from './observe.ts';

/**
 * The action for a device.
 * - `keep`: the device is served as declared, or the differences cannot change during the service.
 * - `resize`: a device of this service gets another size, and the declared limits of `throttle`.
 * - `throttle`: a device of this service gets other limits.
 * - `recover`: the server is gone, and this process serves the device again.
 * - `replace`: the server is gone, and the device had no `recovery`: the device is deleted and created
 *   anew.
 * - `create`: the device does not exist.
 * - `stop`: a device of this service is not in the configuration.
 * - `refuse`: another device has the number, or two devices have the name.
 */
export type ServiceAction =
  'keep' | 'resize' | 'throttle' | 'recover' | 'replace' | 'create' | 'stop' | 'refuse';

/** One step of a plan, about one device. */
export interface ServiceStep {
  readonly name: string;
  readonly action: ServiceAction;
  /** The number of the device, if there is one. */
  readonly id?: number | undefined;
  /** With `resize`: the new size, in bytes. */
  readonly size?: number | undefined;
  /** Why, in words. */
  readonly why: string;
  /** Differences to the configuration that cannot change while the device exists. */
  readonly remains: readonly string[];
}

/** A device of the service itself, with the options of its creation. */
export interface OwnDevice {
  readonly id: number;
  /** In bytes. */
  readonly size: number;
  readonly logicalBlockSize: number;
  readonly options: NamedOptions;
}

/** The steps that give the machine the wanted devices. Reads, and changes nothing. */
export function plan(
  wanted: readonly NamedOptions[],
  seen: readonly SeenDevice[],
  own: ReadonlyMap<string, OwnDevice> = new Map(),
): ServiceStep[] {
  const names = new Set(wanted.map(({ name }) => name));
  const gone = [...own].filter(([name]) => !names.has(name));
  // A device that stops leaves its number and its name to others.
  const stopping = new Set(gone.map(([, { id }]) => id));
  const staying = seen.filter(({ info }) => !stopping.has(info.id));
  const steps = wanted.map((options) => stepFor(options, staying, own.get(options.name)));
  const stops = gone.map(([name, { id }]) =>
    step(name, 'stop', 'the configuration does not name the device', id),
  );
  return [...stops, ...steps];
}

function stepFor(
  options: NamedOptions,
  seen: readonly SeenDevice[],
  own: OwnDevice | undefined,
): ServiceStep {
  const { name } = options;
  if (own !== undefined) return changeOwn(options, own);
  const [found, second] = seen.filter((one) => one.name === name);
  if (found === undefined) return createUnlessTaken(options, seen);
  if (second !== undefined) {
    const ids = `${found.info.path} and ${second.info.path}`;
    return step(name, 'refuse', `${ids} both have the name: remove one with ublk delete`);
  }
  const { info, isServed } = found;
  const differing = differencesOf(options, found);
  if (isServed) {
    const why = `process ${info.serverPid} serves the device`;
    return { ...step(name, 'keep', why, info.id), remains: textsOf(differing) };
  }
  if (info.recovery !== undefined) {
    const { taken, remains } = changesOf(differing);
    const why = ['the device waits for a server', ...taken].join('; ');
    return { ...step(name, 'recover', why, info.id), remains };
  }
  return step(name, 'replace', 'the server has died, and the device has no recovery', info.id);
}

/** What a next server of a device changes, and what the kernel keeps. */
interface Changes {
  readonly taken: readonly string[];
  readonly remains: readonly string[];
}

/** What a next server with these options changes of a device that is served now. */
export function changesBy(options: NamedOptions, found: SeenDevice): Changes {
  return changesOf(differencesOf(options, found));
}

/** The next server takes the declared target, and the kernel keeps the rest. */
function changesOf(differing: readonly Difference[]): Changes {
  return {
    taken: textsOf(differing.filter(isOfTarget)),
    remains: textsOf(differing.filter((one) => !isOfTarget(one))),
  };
}

function createUnlessTaken(options: NamedOptions, seen: readonly SeenDevice[]): ServiceStep {
  const { name, id } = options;
  const other = id === undefined ? undefined : seen.find(({ info }) => info.id === id);
  if (other === undefined) return step(name, 'create', 'the device does not exist');
  const whose = other.name === undefined ? (other.serves ?? 'something else') : `'${other.name}'`;
  return step(name, 'refuse', `number ${id} is that of a device of ${whose}`);
}

/** A step for a device of the service itself: during the service, size and limits can change. */
function changeOwn(options: NamedOptions, own: OwnDevice): ServiceStep {
  const { name } = options;
  const { id, size, options: before } = own;
  const wanted = wantedSize(options.target, own.logicalBlockSize);
  const all = differences(before, options).filter(({ key }) => key !== 'target.size');
  const [limits, found] = [all.filter(isLimit), all.filter((one) => !isLimit(one))];
  const remains = textsOf([...numberDiffers(options, id), ...found]);
  const same =
    limits.length === 0
      ? step(name, 'keep', 'the device is served', id)
      : step(name, 'throttle', textsOf(limits).join('; '), id);
  if (wanted === undefined || wanted === size || found.some(isOfTarget)) {
    return { ...same, remains };
  }
  if (wanted < size && (options.target as { readonly size?: unknown }).size === undefined) {
    // A file that was cut by mistake must not take the end of the device away.
    const cut = `the file holds ${formatSize(wanted)} only; declare that size to shrink the device`;
    return { ...same, remains: [...remains, cut] };
  }
  return { ...step(name, 'resize', resizedText(size, wanted), id), size: wanted, remains };
}

/** The differences of a device of another server, as far as the record says. */
function differencesOf(options: NamedOptions, { info, record }: SeenDevice): Difference[] {
  const number = numberDiffers(options, info.id);
  if (record === undefined) return number;
  const before: Comparable = { ...record.options, target: wholeTarget(record.target) };
  const found = differences(before, options).filter(({ key }) => {
    const [first = '', ...rest] = key.split('.');
    return !CHANGEABLE.has(first) && !ONCE.has(rest.at(-1) ?? '') && key !== 'target.size';
  });
  const size = wantedSize(options.target, info.logicalBlockSize ?? 512);
  const differs = size !== undefined && info.size !== undefined && size !== info.size;
  const resized = differs ? [{ key: 'size', text: resizedText(info.size, size) }] : [];
  return [...number, ...found, ...resized];
}

/** Options that each server chooses anew. */
const CHANGEABLE: ReadonlySet<string> = new Set<string>(RECALLED_KEYS);

function numberDiffers({ id: wanted }: NamedOptions, id: number): Difference[] {
  if (wanted === undefined || wanted === id) return [];
  return [{ key: 'id', text: `the number is ${id}, not ${wanted}` }];
}

function isLimit({ key }: Difference): boolean {
  return key.startsWith('throttle.');
}

function isOfTarget({ key }: Difference): boolean {
  return key.startsWith('target.');
}

function textsOf(found: readonly Difference[]): string[] {
  return found.map(({ text }) => text);
}

function step(name: string, action: ServiceAction, why: string, id?: number): ServiceStep {
  return { name, action, id, why, remains: [] };
}
