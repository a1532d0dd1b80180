import type { DeviceOptions } from '../../src/index.ts';

/** One way for data to reach the server. */
export type Mode = Pick<
  DeviceOptions,
  'exchange' | 'buffers' | 'splitRegister' | 'threads' | 'ringsApart'
>;

const BUFFERS: Mode[] = [
  { buffers: 'auto' },
  { buffers: 'register' },
  { buffers: 'register', splitRegister: true },
  { buffers: ['auto', 'user-copy'] },
  { buffers: ['register', 'user-copy'] },
  { buffers: 'user-copy' },
  { buffers: 'get-data' },
  { buffers: 'copy' },
];

/** Every buffer mode in every exchange that allows it. */
export const MODES: readonly Mode[] = (['per-io', 'batch'] as const).flatMap((exchange) =>
  BUFFERS.filter(({ buffers }) => exchange === 'per-io' || buffers !== 'get-data').map((mode) =>
    Object.assign({ exchange }, mode),
  ),
);

/** The tags dealt out to threads, which one command for many tags cannot be. */
const SPREAD = MODES.filter(({ exchange }) => exchange === 'per-io').map((mode) =>
  Object.assign({ threads: 3 }, mode),
);

/** Front and back apart, where the server registers: with a ring of the front's there is no other. */
const APART = [...MODES, ...SPREAD]
  .filter(({ buffers }) => [buffers].flat()[0] === 'register')
  .map((mode) => Object.assign({ ringsApart: true }, mode));

/** All of them, on all the threads that they can be served by. */
export const SERVED_MODES: readonly Mode[] = [...MODES, ...SPREAD, ...APART];

/** Whether the stage of `npm test` is one that every change passes, so that one variant stands for others. */
export const isBrief = ['short', 'brief'].includes(process.env.UBLK_TEST_MATRIX ?? '');

/** The modes for tests of what hardly depends on the mode: briefly, one mode of each way for data. */
export const KINDS: readonly Mode[] = isBrief
  ? MODES.filter(
      ({ exchange, buffers, splitRegister }) =>
        !splitRegister &&
        ['auto', ...(exchange === 'batch' ? [] : ['user-copy', 'copy'])].includes(String(buffers)),
    )
  : MODES;

/** Those of both exchanges with these buffers. */
export function modesOf(...buffers: DeviceOptions['buffers'][]): Mode[] {
  return MODES.filter((mode) => !mode.splitRegister && buffers.includes(mode.buffers));
}
