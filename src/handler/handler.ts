import { checkBoolean, checkInteger, suggest } from '../check.ts';
import { invalid, within, wrong } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { OPS, type RequestOp } from '../request-op.ts';
import { parseSize } from '../size.ts';
import { toNativeTarget } from '../targets/index.ts';
import { checkTarget } from '../targets/layer.ts';
import { toNativeZones } from './zones.ts';
import type { Answer, Handler, Method } from './types.ts';

const ZONE_METHODS: readonly RequestOp[] = [
  'reportZones',
  'zoneAppend',
  'zoneOpen',
  'zoneClose',
  'zoneFinish',
  'zoneReset',
  'zoneResetAll',
];
const METHODS: readonly RequestOp[] = [
  'read',
  'write',
  'flush',
  'discard',
  'writeZeroes',
  ...ZONE_METHODS,
];
/** The methods required of a zoned handler. */
const NEEDED_FOR_ZONES: readonly RequestOp[] = ['write', 'reportZones', 'zoneReset'];
const KNOWN = [
  'size',
  'blockSize',
  'readOnly',
  'fua',
  'timeoutMs',
  'backends',
  'zones',
  'map',
  'suspend',
  'resume',
  ...METHODS,
] as const;

/** A checked handler in parts. */
export interface CheckedHandler {
  /** The target for the addon, without the bridge. */
  readonly native: NativeTarget;
  /** The methods, by the kernel's number of the operation. */
  readonly methods: readonly (Method | undefined)[];
  /** Whether a method is `map`, by the kernel's number of the operation. */
  readonly mapped: readonly boolean[];
  /** The names of the backends, in order. */
  readonly backends: readonly string[];
  /** The size of a zone of a zoned device, in bytes. */
  readonly zoneSize: number | undefined;
  /** Absent: the default for the kind of device. */
  readonly timeoutMs: number | undefined;
  /** Whether no data comes to JavaScript: `map` answers reads and writes. */
  readonly mapsOnly: boolean;
  /** Whether the handler has `suspend` and `resume`. */
  readonly keepsState: boolean;
}

/**
 * Checks a handler: an object with a size and methods for requests. Returns the same object, also for an
 * instance of a class, with the names of the backends in its type.
 *
 * @example
 * const disk = Buffer.alloc(64 << 20);
 * await using device = await createDevice({
 *   target: handler({
 *     size: disk.length,
 *     read: ({ data, offset }) => void disk.copy(data, 0, offset),
 *     write: ({ data, offset }) => void data.copy(disk, offset),
 *   }),
 * });
 *
 * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`.
 */
export function handler<Name extends string = never>(
  definition: Handler<Name>,
): NoInfer<Handler<Name>> {
  checkHandler(definition as unknown as Handler);
  return definition;
}

/** Whether a target looks like a handler. */
export function isHandler(target: unknown): target is Handler {
  return (
    typeof target === 'object' &&
    target !== null &&
    !('kind' in target) &&
    [...METHODS, 'map'].some((name) => name in target)
  );
}

/** Checks a handler and returns the parts. */
export function checkHandler(definition: Handler): CheckedHandler {
  if (!isHandler(definition)) {
    throw invalid('the handler has no methods', "give it a size and a 'read', or a 'map'");
  }
  refuseUnknown(definition);
  const { size, blockSize, readOnly, fua, timeoutMs, backends = {} } = definition;
  const names = Object.keys(backends);
  const methods = OPS.map((op) => methodFor(definition, op));
  if (methods[0] === undefined) throw invalid("the handler has neither 'read' nor 'map'");
  if (definition.map !== undefined && names.length === 0) {
    throw invalid("the handler has 'map' but no backends", 'give it backends: { disk: … }');
  }
  const { zones } = definition;
  checkZones(definition);
  return {
    native: {
      kind: 'handler',
      size: parseSize(size, 'size'),
      ops: OPS.filter(
        (op, number) => op !== undefined && methods[number] !== undefined,
      ) as RequestOp[],
      targets: names.map((name) => backend(backends[name], `backends.${name}`)),
      ...(blockSize === undefined ? {} : { logicalBlockSize: checkBlock(blockSize) }),
      ...(readOnly === undefined ? {} : { readOnly: checkBoolean(readOnly, 'readOnly') }),
      ...(zones === undefined ? {} : { zones: toNativeZones(zones) }),
      ...(fua === undefined ? {} : { fua: checkBoolean(fua, 'fua') }),
    },
    methods,
    mapped: OPS.map((op) => op !== undefined && isMapped(definition, op)),
    backends: names,
    zoneSize: zones === undefined ? undefined : parseSize(zones.size),
    timeoutMs:
      timeoutMs === undefined ? undefined : checkInteger(timeoutMs, 'timeoutMs', 250, 86_400_000),
    mapsOnly: definition.map !== undefined && !definition.read && !definition.write,
    keepsState: keepsState(definition),
  };
}

function backend(target: unknown, key: string): NativeTarget {
  const checked = checkTarget(target, key);
  return within(key, () => toNativeTarget(checked, 1));
}

function methodFor(definition: Handler, op: RequestOp | undefined): Method | undefined {
  if (op === undefined) return undefined;
  const maps = isMapped(definition, op);
  const method: unknown = maps ? definition.map : definition[op];
  if (method === undefined) return undefined;
  // V8 calls a bound function at a higher cost.
  if (typeof method === 'function') return (request) => method.call(definition, request) as Answer;
  throw wrong(maps ? 'map' : op, `must be a function, not ${typeof method}`);
}

function keepsState({ suspend, resume }: Handler): boolean {
  for (const [key, method] of Object.entries({ suspend, resume }) as [string, unknown][]) {
    if (method === undefined || typeof method === 'function') continue;
    throw wrong(key, `must be a function, not ${typeof method}`);
  }
  if ((suspend === undefined) === (resume === undefined)) return suspend !== undefined;
  const [has, lacks] = resume === undefined ? ['suspend', 'resume'] : ['resume', 'suspend'];
  throw invalid(`the handler has '${has}' but no '${lacks}'`, 'a hand-over needs both', lacks);
}

/** Whether `map` answers these requests, for lack of another method. */
function isMapped(definition: Handler, op: RequestOp): boolean {
  return (op === 'read' || op === 'write') && definition[op] === undefined;
}

function checkZones(definition: Handler): void {
  const has = (name: RequestOp): boolean => definition[name] !== undefined;
  const stray = ZONE_METHODS.find(has);
  if (definition.zones === undefined) {
    if (stray !== undefined) throw invalid(`the handler has '${stray}' but no zones`);
    return;
  }
  const missing = NEEDED_FOR_ZONES.find((name) => !has(name));
  if (missing !== undefined) throw invalid(`the handler has zones but no '${missing}'`);
}

/** Other software's names for the members of a handler. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['logicalblocksize', 'blockSize'],
  ['sectorsize', 'blockSize'],
  ['trim', 'discard'],
  ['unmap', 'discard'],
  ['sync', 'flush'],
  ['fsync', 'flush'],
  ['timeout', 'timeoutMs'],
]);

/**
 * Refuses members without effect: in a plain object every unknown key. An instance of a class has other
 * state and methods, so only other software's names and names in the wrong case are refused there.
 */
function refuseUnknown(definition: Handler): void {
  const prototype: unknown = Object.getPrototypeOf(definition);
  const isPlain = prototype === Object.prototype || prototype === null;
  for (const name of isPlain ? Object.keys(definition) : namesOf(definition)) {
    if ((KNOWN as readonly string[]).includes(name)) continue;
    const word = name.toLowerCase();
    const meant = ALIASES.get(word) ?? KNOWN.find((known) => known.toLowerCase() === word);
    if (meant !== undefined) throw unknown(name, `did you mean '${meant}'?`);
    if (isPlain) throw unknown(name, `${suggest(name, KNOWN)}; state belongs into a class`);
  }
}

function unknown(name: string, hint: string): Error {
  return invalid(`the handler has no '${name}'`, hint, name);
}

/** The names of an object's properties and methods, without the members of `Object.prototype`. */
function namesOf(definition: object): string[] {
  const names: string[] = [];
  let one: object | null = definition;
  while (one !== null && one !== Object.prototype) {
    names.push(...Object.getOwnPropertyNames(one));
    one = Object.getPrototypeOf(one) as object | null;
  }
  return names;
}

function checkBlock(value: unknown): number {
  if (value === 512 || value === 1024 || value === 2048 || value === 4096) return value;
  throw wrong('blockSize', `is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
