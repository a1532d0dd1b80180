import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

import ts from 'typescript';
import { expect, test } from 'vitest';

import { UblkErrorCode } from '../../../src/index.ts';

const ROOT = join(import.meta.dirname, '../../..');
const GUIDES = readdirSync(join(ROOT, 'docs/guides')).map((name) => `docs/guides/${name}`);
const DOCUMENTS = ['README.md', 'CONTRIBUTING.md', 'docs/architecture.md', ...GUIDES];

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

test.each(DOCUMENTS)('the links of %s lead to files and headings', (document) => {
  const text = readFileSync(join(ROOT, document), 'utf8');
  const links = [...text.matchAll(/\]\(([^)#]*)(?:#([^)]*))?\)/g)];
  const dead = links.filter(([, link, anchor]) => {
    if (link!.startsWith('http')) return false;
    const file = link === '' ? join(ROOT, document) : join(ROOT, dirname(document), link!);
    return !existsSync(file) || (anchor !== undefined && !anchors(file).includes(anchor));
  });
  expect(dead.map(([link]) => link)).toEqual([]);
});

/** What links to the headings of a file end with. */
function anchors(file: string): string[] {
  const headings = readFileSync(file, 'utf8').matchAll(/^#+ (.+)$/gm);
  return [...headings].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
}

test('the troubleshooting guide has each error code once', () => {
  const text = readFileSync(join(ROOT, 'docs/guides/troubleshooting.md'), 'utf8');
  const listed = [...text.matchAll(/^\| `(ERR_UBLK_\w+)`/gm)].map(([, code]) => code);
  expect(listed.sort()).toEqual(Object.values(UblkErrorCode).sort());
});

test('the guide to kernels has each feature with the release that the driver table says', () => {
  const guide = readFileSync(join(ROOT, 'docs/guides/kernels.md'), 'utf8');
  const rows = guide.matchAll(/^\| `([A-Z_]+)` +\| ([\d.]+) /gm);
  const table = readFileSync(join(ROOT, 'crates/ublk-sys/src/features.rs'), 'utf8');
  const features = table.matchAll(/const UBLK_F_(\w+): u64 = .*since "([\d.]+)"/g);
  const pairs = (found: Iterable<string[]>) => [...found].map(([, name, since]) => [name, since]);
  expect(pairs(rows)).toEqual(pairs(features));
});
