// `npm run build:platforms [-- TARGET…]`: the addon for all platforms, built on one x64 machine.

import { readFileSync, statSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { basename, delimiter, join } from 'node:path';

import { execa } from 'execa';

import { ensurePackages } from './debian.ts';
import { toolchainWithSources } from './platforms/toolchain.ts';
import { zigTools } from './platforms/zig.ts';

/** The oldest glibc of the binaries: that of Debian 10 and RHEL 8. */
const GLIBC = '2.28';
/** The platform whose standard library comes with the toolchain. */
const OWN = 'x86_64-unknown-linux-gnu';

const root = join(import.meta.dirname, '..');
/** The platforms in the names of files and packages, by the target of Rust. */
const PLATFORMS = JSON.parse(readFileSync(join(root, 'npm/platforms.json'), 'utf8')) as Readonly<
  Record<string, string>
>;
const targets = Object.keys(PLATFORMS);
const asked = process.argv.slice(2);
const unknown = asked.find((target) => !targets.includes(target));
if (unknown !== undefined) {
  console.error(`error: there is no target ${unknown}; there are ${targets.join(', ')}`);
  process.exit(2);
}

await ensurePackages(['python3-venv', 'binutils'], 'build for other platforms');
const tools = await zigTools();
const wanted = asked.length > 0 ? asked : targets;
const rust = wanted.some((target) => target !== OWN) ? await toolchainWithSources() : undefined;
for (const target of wanted) {
  console.log(`── ${target}`);
  const name = PLATFORMS[target]!;
  const file = join(root, 'npm', name, `ublk.${name}.node`);
  await build(target, file);
  const { size } = statSync(file);
  const { stdout: symbols } = await execa('readelf', ['--version-info', '--wide', file]);
  const glibc = [...symbols.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, , minor]) => Number(minor));
  const needs = glibc.length > 0 ? `glibc 2.${Math.max(...glibc)}` : 'musl';
  console.log(`${file}: ${(size / 1e6).toFixed(2)} MB, needs ${needs}`);
}

/** Builds the addon of one platform into the folder of the platform's package. */
async function build(target: string, file: string): Promise<void> {
  const floor = target.endsWith('-gnu') ? `.${GLIBC}` : '';
  const sources = target === OWN ? undefined : rust;
  // Cargo looks for the sources beside the cargo that runs, not beside `RUSTC`.
  const own = sources === undefined ? [] : [join(sources, 'bin')];
  const env = {
    PATH: [...own, tools, process.env['PATH']].join(delimiter),
    CARGO_PROFILE_RELEASE_DEBUG: '0',
    CARGO_PROFILE_RELEASE_STRIP: 'symbols',
    ...(sources && {
      // The standard library is built from source, which stable compilers do for whoever asks so.
      RUSTC_BOOTSTRAP: '1',
      CARGO_UNSTABLE_BUILD_STD: 'std,panic_abort,panic_unwind',
    }),
  };
  const out = join(root, 'target/platforms');
  const args = ['napi', 'build', '--cross-compile', '--platform', '--release', '--no-js'];
  const places = ['--manifest-path', 'crates/ublk-node/Cargo.toml', '--output-dir', out];
  const run = { cwd: root, env, stdio: 'inherit' } as const;
  await execa('npx', [...args, ...places, '--target', `${target}${floor}`], run);
  await copyFile(join(out, basename(file)), file);
}
