import { checkBoolean, checkInteger, suggest } from '../check.ts';
import { invalid } from '../errors.ts';
import type { NativeTarget } from '../native.ts';
import { OPS, type RequestOp } from '../request-op.ts';
import { parseSize } from '../size.ts';
import { toNativeTarget, type Target } from '../targets/index.ts';
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
  readonly timeoutMs: number;
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
export function handler<Name extends string = never, H extends Handler<Name> = Handler<Name>>(
  definition: H & Handler<Name>,
): H {
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
  refuseMisspelt(definition);
  const { size, blockSize, readOnly, fua, timeoutMs = 30_000, backends = {} } = definition;
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
      targets: names.map((name) => toNativeTarget(backends[name] as Target, 1)),
      ...(blockSize === undefined ? {} : { logicalBlockSize: checkBlock(blockSize) }),
      ...(readOnly === undefined ? {} : { readOnly: checkBoolean(readOnly, 'readOnly') }),
      ...(zones === undefined ? {} : { zones: toNativeZones(zones) }),
      ...(fua === undefined ? {} : { fua: checkBoolean(fua, 'fua') }),
    },
    methods,
    mapped: OPS.map((op) => op !== undefined && isMapped(definition, op)),
    backends: names,
    zoneSize: zones === undefined ? undefined : parseSize(zones.size),
    timeoutMs: checkInteger(timeoutMs, 'timeoutMs', 250, 86_400_000),
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

/** A method under a name that is nearly right would never be called. */
function refuseMisspelt(definition: Handler): void {
  for (const [name, value] of Object.entries(definition)) {
    if (typeof value !== 'function' || (KNOWN as readonly string[]).includes(name)) continue;
    const hint = suggest(name, METHODS);
    if (hint.startsWith('did you mean')) throw invalid(`the handler has no '${name}'`, hint);
  }
}

function checkBlock(value: unknown): number {
  if (value === 512 || value === 1024 || value === 2048 || value === 4096) return value;
  throw invalid(`blockSize is ${String(value)}; it must be 512, 1024, 2048 or 4096`);
}
