// A vitest reporter: what failed, if only at first, a line each and last of all: the end of a log
// tells it.

import { relative } from 'node:path';
import { stripVTControlCharacters, styleText } from 'node:util';

import type { Reporter, SerializedError, TestCase, TestModule } from 'vitest/node';

type Failed = Pick<SerializedError, 'message'> & { error?: Failed; suppressed?: Failed };

function linesOf(errors: readonly Failed[]): string[] {
  return errors.flatMap(({ message, error, suppressed }) => {
    // `await using` failed after the test: a SuppressedError says nothing by itself.
    if (suppressed && error) return linesOf([suppressed, error]);
    return stripVTControlCharacters(message).split('\n', 1);
  });
}

function describe(test: TestCase): string {
  const { duration = 0 } = test.diagnostic() ?? {};
  const why = linesOf(test.result().errors ?? []).join('; ');
  return `${fileOf(test.module)} > ${test.fullName} (${(duration / 1000).toFixed(1)} s): ${why}`;
}

function fileOf({ moduleId }: TestModule): string {
  return relative(process.cwd(), moduleId);
}

/** Failures of tests, and of what stands around them. */
function failuresOf(module: TestModule): string[] {
  const suites = [module, ...module.children.allSuites()];
  const around = suites.flatMap((suite) => linesOf(suite.errors()));
  const tests = [...module.children.allTests('failed')];
  return [...around.map((why) => `${fileOf(module)}: ${why}`), ...tests.map(describe)];
}

function repeatedOf(module: TestModule): string[] {
  const tests = [...module.children.allTests('passed')];
  return tests.filter((test) => test.diagnostic()?.flaky).map(describe);
}

function print(heading: string, lines: readonly string[]): void {
  if (lines.length === 0) return;
  console.log(styleText('bold', `\n ${heading}:`));
  for (const line of lines) console.log(`    ${line}`);
}

export default class Failures implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    print('Passed only when repeated', modules.flatMap(repeatedOf));
    print('Failed', [...modules.flatMap(failuresOf), ...linesOf(unhandled)]);
  }
}
