// What publint and "are the types wrong?" find in the packed root package.

import { readFileSync } from 'node:fs';

import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { problemKindInfo } from '@arethetypeswrong/core/problems';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

import type { Packed } from './pack.ts';

/** CommonJS of before `require()` of modules, and resolution of before `exports`: nobody is promised those. */
const NOT_PROMISED: readonly string[] = ['CJSResolvesToESM', 'NoResolution'];

/** Looks at exports and types of the root package. */
export async function types(root: string, [first]: readonly Packed[]): Promise<string[]> {
  const { messages, pkg } = await publint({ pkgDir: root, level: 'warning' });
  const tarball = createPackageFromTarballData(readFileSync(first!.tarball));
  const analysis = await checkPackage(tarball);
  const wrong = analysis.types === false ? [] : analysis.problems;
  const counted = wrong.filter(({ kind }) => !NOT_PROMISED.includes(kind));
  return [
    ...messages.map((message) => formatMessage(message, pkg) ?? message.code),
    ...(analysis.types === false ? ['the package has no types'] : []),
    ...new Set(counted.map(({ kind }) => problemKindInfo[kind].title)),
  ];
}
