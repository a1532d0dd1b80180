import { setImmediate } from 'node:timers/promises';

import { expect, test } from 'vitest';

import { runAll, type Scheduled } from '../../../scripts/schedule.ts';

/** What runs at each moment: each running part takes as many turns as `turns` says, by default one. */
async function trace(
  stages: readonly Scheduled[],
  turns: Record<string, number> = {},
): Promise<string[]> {
  const moments: string[] = [];
  const running: string[] = [];
  await runAll(stages, 2, async ({ name }, part) => {
    const me = `${name}${part}`;
    running.push(me);
    moments.push(running.join(' '));
    for (let turn = turns[me] ?? 1; turn > 0; turn -= 1) await setImmediate();
    running.splice(running.indexOf(me), 1);
  });
  return moments;
}

test('a free place takes the first stage that is ready', async () => {
  const stages = [{ name: 'a' }, { name: 'b', after: ['a'] }, { name: 'c' }, { name: 'd' }];
  expect(await trace(stages, { a0: 5, c0: 2, d0: 9 })).toEqual(['a0', 'a0 c0', 'a0 d0', 'd0 b0']);
});

test('parts of one stage run beside each other, and a stage that waits for it waits for all', async () => {
  const stages = [
    { name: 'a', parts: 3 },
    { name: 'b', after: ['a'] },
  ];
  const turns = { a0: 1, a1: 4, a2: 9 };
  expect(await trace(stages, turns)).toEqual(['a0', 'a0 a1', 'a1 a2', 'b0']);
});

test('a stage does not wait for one that was not asked for', async () => {
  expect(await trace([{ name: 'unit', after: ['build'] }])).toEqual(['unit0']);
});

test('stages that wait for each other are an error, not a wait for ever', async () => {
  const stages = [
    { name: 'a', after: ['b'] },
    { name: 'b', after: ['a'] },
  ];
  await expect(trace(stages)).rejects.toThrow('these stages wait for each other: a, b');
});
