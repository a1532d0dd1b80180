import { vi, type Mock } from 'vitest';

import type { Counters, DeviceInfo, NativeDevice, NativeEnd } from '../../src/native.ts';

/** The addon's device as an object: a spread of the class would leave out the methods. */
type Methods = { [K in keyof NativeDevice]: NativeDevice[K] };

/** The addon's device without a kernel: closing ends it. */
export function fakeDevice(onEnd: (end: NativeEnd) => void): Methods & {
  [
    K in
      | 'stalls'
      | 'share'
      | 'unshare'
      | 'snapshot'
      | 'frozen'
      | 'flatten'
      | 'quiesce'
      | 'part'
      | 'release'
      | 'close'
  ]: Mock<NativeDevice[K]>;
} {
  return {
    address: () => null,
    info: () => INFO,
    buffers: () => ({ mode: 'auto', userCopy: false, shared: false }),
    exchangeMode: () => 'per-io',
    stats: () => [
      { ...NOTHING, reads: 1, readBytes: 512 },
      { ...NOTHING, reads: 2, readBytes: 8192 },
    ],
    watch: () => ({ take: () => ({ records: Buffer.alloc(0), dropped: 0 }), end: () => {} }),
    measure: () => {},
    latencies: () => null,
    stalls: vi.fn<NativeDevice['stalls']>(() => []),
    throttle: vi.fn<NativeDevice['throttle']>(() => ({ value: undefined })),
    resize: vi.fn<NativeDevice['resize']>(async (size) => ({ value: { ...INFO, size } })),
    snapshot: vi.fn<NativeDevice['snapshot']>(async (_children, path) => ({
      value: {
        path: path ?? '/disks/vm.layer.7',
        layer: '6f8b33b2-7c43-4e8e-bd5e-6f4bd4fbf2f1',
        generation: 7,
      },
    })),
    frozen: vi.fn<NativeDevice['frozen']>(async () => ({ value: null })),
    flatten: vi.fn<NativeDevice['flatten']>(async () => ({
      value: { kept: [], removed: ['/disks/vm.layer.6'] },
    })),
    quiesce: vi.fn<NativeDevice['quiesce']>(async () => {
      onEnd({ reason: 'quiesced' });
      return { value: undefined };
    }),
    share: vi.fn<NativeDevice['share']>(async () => ({ value: 3 })),
    unshare: vi.fn<NativeDevice['unshare']>(async () => ({ value: undefined })),
    part: vi.fn<NativeDevice['part']>(async () => {
      onEnd({ reason: 'quiesced' });
      return { value: undefined };
    }),
    release: vi.fn<NativeDevice['release']>(async () => {
      onEnd({ reason: 'closed' });
      return { value: undefined };
    }),
    close: vi.fn<NativeDevice['close']>(async () => {
      onEnd({ reason: 'closed' });
      return { value: undefined };
    }),
  };
}

const INFO: DeviceInfo = {
  id: 7,
  path: '/dev/ublkb7',
  state: 'live',
  queues: 2,
  depth: 128,
  maxIoBytes: 1 << 20,
  size: 1 << 30,
  logicalBlockSize: 4096,
  readOnly: false,
  serverPid: process.pid,
  ownerUid: 0,
  ownerGid: 0,
  features: ['AUTO_BUF_REG'],
};

const NOTHING: Counters = {
  reads: 0,
  writes: 0,
  flushes: 0,
  discards: 0,
  writeZeroes: 0,
  readBytes: 0,
  writeBytes: 0,
  zeroCopyBytes: 0,
  copiedBytes: 0,
  errors: 0,
  shortResults: 0,
  zeroFilledBytes: 0,
  registrations: 0,
  fallbacks: 0,
  enters: 0,
};
