// Figures of another server, for scale. It is not part of this checkout, so they do not move with
// it: they were measured once, in the same way, in the same run as this project's rows of that day.

export interface Reference {
  /** The subject's name. */
  name: string;
  target: 'file' | 'null';
  /** Instructions per I/O by workload, one queue of depth 128. */
  costs: Readonly<Record<string, number>>;
}

const ORDER = [
  ...['randread', 'randwrite'].flatMap((pattern) =>
    [1, 32, 128].map((depth) => `4k ${pattern} qd${depth}`),
  ),
  '1M read qd8',
  '1M write qd8',
];

export const REFERENCE_NOTE =
  "the server of the kernel's own ublk selftests (C, Linux 7.3.4), measured once with the same " +
  'settings on 2026-11-23; not measured again by this command';

export const REFERENCES: readonly Reference[] = [
  reference('file', 'auto', [35_375, 18_500, 18_200, 36_125, 19_400, 19_050, 906_250, 968_750]),
  reference(
    'file',
    'auto, batch',
    [38_000, 17_800, 17_500, 38_875, 18_750, 18_350, 906_250, 968_750],
  ),
  reference('file', 'register', [38_000, 20_100, 19_800, 38_875, 21_000, 20_700, 910_156, 972_656]),
  reference('file', 'copy', [41_250, 23_700, 23_350, 41_000, 24_400, 24_000, 2_007_812, 2_070_312]),
  reference('null', 'auto', [29_125, 11_800, 11_300]),
  reference('null', 'auto, batch', [31_000, 10_950, 11_800]),
  reference('null', 'copy', [30_625, 15_000, 14_750]),
];

function reference(target: 'file' | 'null', mode: string, costs: readonly number[]): Reference {
  return {
    name: `${target} by kublk, ${mode}`,
    target,
    costs: Object.fromEntries(costs.map((cost, index) => [ORDER[index]!, cost])),
  };
}
