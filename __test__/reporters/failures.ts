// A vitest reporter: what failed, a line each and last of all, so that the end of a log tells it.

import { relative } from 'node:path';
import { stripVTControlCharacters, styleText } from 'node:util';

import type { Reporter, SerializedError, TestModule } from 'vitest/node';

function linesOf(errors: readonly Pick<SerializedError, 'message'>[]): string[] {
  return errors.map(({ message }) => stripVTControlCharacters(message).split('\n', 1)[0] ?? '');
}

function failuresOf(module: TestModule): string[] {
  const file = relative(process.cwd(), module.moduleId);
  const suites = [module, ...module.children.allSuites()];
  const outside = suites.flatMap((suite) =>
    linesOf(suite.errors()).map((why) => `${file}: ${why}`),
  );
  const tests = [...module.children.allTests('failed')].map((test) => {
    const { duration = 0 } = test.diagnostic() ?? {};
    const why = linesOf(test.result().errors ?? []).join('; ');
    return `${file} > ${test.fullName} (${(duration / 1000).toFixed(1)} s): ${why}`;
  });
  return [...outside, ...tests];
}

export default class Failures implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const failures = [...modules.flatMap(failuresOf), ...linesOf(unhandled)];
    if (failures.length === 0) return;
    console.log(styleText('bold', '\n Failed:'));
    for (const failure of failures) console.log(`    ${failure}`);
  }
}
