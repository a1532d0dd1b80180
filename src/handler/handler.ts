import { checkBoolean, checkInteger, suggest } from '../check.ts';
import { invalid } from '../errors.ts';
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
/** The kernel takes a device for zoned only if these are answered. */
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
  ...METHODS,
] as const;

/** A handler that has been checked, taken apart. */
export interface CheckedHandler {
  /** As the addon takes it, without the bridge to it. */
  readonly native: NativeTarget;
  /** Its methods, by the kernel's number of the operation. */
  readonly methods: readonly (Method | undefined)[];
  /** Which of them are its `map`, by the same number. */
  readonly mapped: readonly boolean[];
  /** The names of its backends, in their order. */
  readonly backends: readonly string[];
  /** Of a zoned device, in bytes. */
  readonly zoneSize: number | undefined;
  /** Absent: the default, which depends on the device. */
  readonly timeoutMs: number | undefined;
  /** Whether it never looks at data: whoever reads and writes, does so by `map`. */
  readonly mapsOnly: boolean;
}

/**
 * Checks a handler: an object with a size and methods that answer requests. It gives the object
 * back as it is, an instance of a class too, with the names of its backends known to TypeScript.
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

/** Whether something that should be a target is meant as a handler. */
export function isHandler(target: unknown): target is Handler {
  return (
    typeof target === 'object' &&
    target !== null &&
    !('kind' in target) &&
    [...METHODS, 'map'].some((name) => name in target)
  );
}

/** Checks a handler and takes it apart. */
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
      targets: names.map((name) =>
        toNativeTarget(checkTarget(backends[name], `backends.${name}`), 1),
      ),
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
  };
}

function methodFor(definition: Handler, op: RequestOp | undefined): Method | undefined {
  if (op === undefined) return undefined;
  const maps = isMapped(definition, op);
  const method: unknown = maps ? definition.map : definition[op];
  if (method === undefined) return undefined;
  // A bound function would be called for by a way of the engine's that costs more.
  if (typeof method === 'function') return (request) => method.call(definition, request) as Answer;
  throw invalid(`${maps ? 'map' : op} must be a function, not ${typeof method}`);
}

/** Whether `map` answers these requests in place of a method of their own. */
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

/** Names that other software has for what a handler has. */
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
 * Refuses what would have no effect: of a plain object every key that a handler does not have. An
 * instance of a class has state and methods of its own; of these it refuses what is named as in
 * other software, or differs in case only.
 */
function refuseUnknown(definition: Handler): void {
  const prototype: unknown = Object.getPrototypeOf(definition);
  const isPlain = prototype === Object.prototype || prototype === null;
  for (const name of isPlain ? Object.keys(definition) : namesOf(definition)) {
    if ((KNOWN as readonly string[]).includes(name)) continue;
    const word = name.toLowerCase();
    const meant = ALIASES.get(word) ?? KNOWN.find((known) => known.toLowerCase() === word);
    if (meant !== undefined) throw invalid(unknown(name), `did you mean '${meant}'?`);
    if (isPlain)
      throw invalid(unknown(name), `${suggest(name, KNOWN)}; state belongs into a class`);
  }
}

function unknown(name: string): string {
  return `the handler has no '${name}'`;
}

/** The names of an object's properties and methods, without those that every object has. */
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
  throw invalid(`blockSize is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
