// A vitest reporter: what was skipped and why, in a few lines.

import { styleText } from 'node:util';

import type { Reporter, TestCase, TestModule } from 'vitest/node';

/** A reason is the test's own, or stands in brackets in a name above it. */
function reasonOf(test: TestCase): string {
  const result = test.result();
  if (result.state === 'skipped' && result.note) return result.note;
  return /\[(.+)\]/.exec(test.fullName)?.[1] ?? 'no reason given';
}

export default class Skips implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = new Map<string, number>();
    for (const module of modules) {
      for (const test of module.children.allTests('skipped')) {
        const reason = reasonOf(test);
        counts.set(reason, (counts.get(reason) ?? 0) + 1);
      }
    }
    if (counts.size === 0) return;
    console.log(styleText('bold', '\n Skipped, and why:'));
    const lines = [...counts].sort(([, a], [, b]) => b - a);
    for (const [reason, count] of lines) console.log(`${String(count).padStart(5)}  ${reason}`);
  }
}
