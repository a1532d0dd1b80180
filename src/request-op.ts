/** The operations of requests; the index is the kernel's number, `UBLK_IO_OP_*`. */
const NAMES = [
  'read',
  'write',
  'flush',
  'discard',
  undefined,
  'writeZeroes',
  undefined,
  undefined,
  undefined,
  undefined,
  'zoneOpen',
  'zoneClose',
  'zoneFinish',
  'zoneAppend',
  'zoneResetAll',
  'zoneReset',
  undefined,
  undefined,
  'reportZones',
] as const;

/** The operation of a request. */
export type RequestOp = NonNullable<(typeof NAMES)[number]>;

/** Operations by the kernel's numbers, `UBLK_IO_OP_*`. */
export const OPS: readonly (RequestOp | undefined)[] = NAMES;
