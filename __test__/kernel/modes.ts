import type { DeviceOptions } from '../../src/index.ts';

/** One way for data to reach the server. */
export type Mode = Pick<DeviceOptions, 'exchange' | 'buffers' | 'splitRegister'>;

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

/** Those of both exchanges with these buffers. */
export function modesOf(...buffers: DeviceOptions['buffers'][]): Mode[] {
  return MODES.filter((mode) => !mode.splitRegister && buffers.includes(mode.buffers));
}
