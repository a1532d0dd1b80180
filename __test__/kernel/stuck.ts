// After a test that failed on the kernel: who sleeps without listening to signals, and where in the
// kernel. A command that the driver never answers is found in no other way.

import { readFileSync } from 'node:fs';

import { afterEach } from 'vitest';

import { allTasks } from './tasks.ts';

const SLEEPS_DEAF = 'D';

afterEach(({ task }) => {
  if ((task.result?.errors ?? []).length === 0) return;
  const stuck = allTasks().flatMap(describe);
  if (stuck.length > 0) console.log(`Stuck in the kernel after this test:\n${stuck.join('\n')}`);
});

/** The name of a task in such a sleep, with its stack; nothing for all others. */
function describe(task: string): string[] {
  try {
    const stat = readFileSync(`${task}/stat`, 'utf8');
    const nameEnd = stat.lastIndexOf(')');
    if (stat[nameEnd + 2] !== SLEEPS_DEAF) return [];
    return [`${stat.slice(0, nameEnd + 1)}\n${readFileSync(`${task}/stack`, 'utf8')}`];
  } catch {
    return []; // The task has ended since it was listed.
  }
}
