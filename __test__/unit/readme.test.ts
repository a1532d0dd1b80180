import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

import ts from 'typescript';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const GUIDES = readdirSync(join(ROOT, 'docs/guides')).map((name) => `docs/guides/${name}`);
const DOCUMENTS = ['README.md', ...GUIDES];

/** What the snippets use and do not say where it is from. */
const AROUND = `
  import type * as ublk from 'ublk';
  declare global {
    const { createDevice, createReactorPool, handler, recoverDevice, targets }: typeof ublk;
    const target: ublk.Target;
    const device: ublk.Device;
    function isHot(offset: number): boolean;
    function audit(...all: unknown[]): void;
    function test(name: string, run: () => Promise<void>): void;
    function expect(value: unknown): { toEqual(other: unknown): void };
  }
`;

function snippets(document: string): string[] {
  const text = readFileSync(join(ROOT, document), 'utf8');
  return [...text.matchAll(/```(?:ts|js)\n(.*?)```/gs)].map(([, code]) => `${code}export {};\n`);
}

/** What the compiler says of texts that are modules in the package's root. */
function complaints(texts: ReadonlyMap<string, string>): string[] {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile } = host;
  host.fileExists = (path) => texts.has(path) || fileExists(path);
  host.readFile = (path) => texts.get(path) ?? readFile(path);
  const program = ts.createProgram([...texts.keys()], options, host);
  const sources = [...texts.keys()].map((path) => program.getSourceFile(path));
  const found = [
    ...sources.flatMap((source) => program.getSyntacticDiagnostics(source)),
    ...sources.flatMap((source) => program.getSemanticDiagnostics(source)),
  ];
  return found.map(({ file, start = 0, messageText }) => {
    const line = file?.text.slice(start).split('\n', 1)[0];
    return `${ts.flattenDiagnosticMessageText(messageText, ' ')}: ${line}`;
  });
}

test('the snippets of README and guides compile', () => {
  const shown = DOCUMENTS.flatMap(snippets);
  expect(shown.length).toBeGreaterThan(10);
  const path = (name: string | number): string => join(ROOT, `readme-${name}.ts`);
  const texts = new Map(shown.map((code, number) => [path(number), code]));
  expect(complaints(texts.set(path('around'), AROUND))).toEqual([]);
}, 60_000);

test.each(DOCUMENTS)('the links of %s lead to files', (document) => {
  const text = readFileSync(join(ROOT, document), 'utf8');
  const links = [...text.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map(([, link]) => link!);
  const files = links.filter((link) => !link.startsWith('http'));
  const dead = files.filter((link) => !existsSync(join(ROOT, dirname(document), link)));
  expect(dead).toEqual([]);
});
