import { createRequire } from 'node:module';

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build, type Format } from 'esbuild';
import { execa } from 'execa';
import ts from 'typescript';
import { expect, test } from 'vitest';

import { load } from '../../../src/native.ts';

test('off Linux the addon is not even looked for', () => {
  const require = () => expect.unreachable();
  expect(() => load(require, 'darwin', 'arm64')).toThrow(
    expect.objectContaining({ code: 'ERR_UBLK_UNSUPPORTED_PLATFORM' }),
  );
});

test('a missing addon is named, with how to get it', () => {
  const require = createRequire(import.meta.url);
  const missing = () => require('./no-such-addon.cjs') as unknown;
  expect(() => load(missing, 'linux', 'x64')).toThrow(
    expect.objectContaining({
      code: 'ERR_UBLK_NO_ADDON',
      message: expect.stringMatching(/ublk-linux-x64-(gnu|musl)/) as string,
      hint: expect.stringContaining('npm run build:native') as string,
    }),
  );
});

test('an addon that does not load says why, though the loader tried other places too', () => {
  const dlopen = Object.assign(new Error("version `GLIBC_2.99' not found"), {
    code: 'ERR_DLOPEN_FAILED',
  });
  const loader = () => {
    throw new Error('Cannot find native binding', { cause: new Error('other', { cause: dlopen }) });
  };
  expect(() => load(loader, 'linux', 'x64')).toThrow(/does not load: .*GLIBC_2.99/);
});

test.each([
  ['loading addons is disabled', /--no-addons.*--allow-addons/],
  ['Access to this API has been restricted', /--allow-fs-read/],
])('what Node.js is told not to do is said: %s', (says, hint) => {
  const loader = () => {
    throw new Error('Cannot find native binding', { cause: new Error(`no: ${says}`) });
  };
  const refused = { code: 'ERR_UBLK_NO_ADDON', hint: expect.stringMatching(hint) };
  expect(() => load(loader, 'linux', 'x64')).toThrow(expect.objectContaining(refused));
});

test.each<[Format]>([['cjs'], ['esm']])(
  'a bundle of format %s does nothing but say so',
  async (format) => {
    const folder = mkdtempSync(join(tmpdir(), 'ublk-bundle-'));
    try {
      const program = `
      import { listDevices, createDevice, handlerModule } from './index.ts';
      console.log('imported');
      const target = handlerModule('/disk.js');
      for (const call of [listDevices, () => createDevice({ target })]) {
        call().catch(({ code, hint }) => console.log(code, hint));
      }
    `;
      const resolveDir = fileURLToPath(new URL('../../../src', import.meta.url));
      const outfile = join(folder, format === 'cjs' ? 'bundle.cjs' : 'bundle.mjs');
      const stdin = { contents: program, resolveDir, loader: 'ts' as const };
      await build({ stdin, outfile, format, bundle: true, platform: 'node', logLevel: 'silent' });
      const { stdout } = await execa('node', [outfile]);
      const said = expect.stringMatching(/^ERR_UBLK_NO_ADDON .*--external:ublk/);
      expect(stdout.split('\n')).toEqual(['imported', said, said]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

test('a Node.js without addons says so', async () => {
  const native = fileURLToPath(new URL('../../../native/binding.cjs', import.meta.url));
  const program = `import { load } from ${JSON.stringify(new URL('../../../src/native.ts', import.meta.url).pathname)};
    import { createRequire } from 'node:module';
    try { load(() => createRequire(import.meta.url)(${JSON.stringify(native)}), 'linux', 'x64'); }
    catch ({ message }) { console.log(message); }`;
  const args = ['--no-addons', '--import', 'tsx', '--input-type=module', '--eval', program];
  const { stdout } = await execa('node', args);
  expect(stdout).toBe('Node.js is told not to load addons');
});

test('the generated declarations name no type that is not declared: such a type would pass as any', () => {
  const file = fileURLToPath(new URL('../../../native/binding.d.cts', import.meta.url));
  const program = ts.createProgram([file], {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    strict: true,
    types: ['node'],
  });
  const problems = program.getSemanticDiagnostics(program.getSourceFile(file));
  const messages = problems.map((one) => ts.flattenDiagnosticMessageText(one.messageText, ' '));
  expect(messages).toEqual([]);
});
