/** What requests can ask for, each at the kernel's number of it: `UBLK_IO_OP_*`. */
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

/** What a request asks for. */
export type RequestOp = NonNullable<(typeof NAMES)[number]>;

/** Operations by the kernel's numbers of them, `UBLK_IO_OP_*`. */
export const OPS: readonly (RequestOp | undefined)[] = NAMES;
