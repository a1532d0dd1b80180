import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { runInVm } from '../../vm/index.ts';
import { CONSUMER, HANDLERS, SETUPS, STRICT, TSCONFIG } from './consumer.ts';

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
const PLATFORM = join(CHECKOUT, 'npm/linux-x64-gnu');
const ADDON = 'ublk.linux-x64-gnu.node';
/** The types of Node.js that this checkout is compiled with. */
const { version: TYPES_VERSION } = JSON.parse(
  readFileSync(join(CHECKOUT, 'node_modules/@types/node/package.json'), 'utf8'),
) as { version: string };

interface Packed {
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

/** Makes the tarball of the package in `folder`. */
async function pack(folder: string, destination: string): Promise<Packed> {
  const args = ['pack', '--json', '--pack-destination', destination];
  const { stdout } = await execa('npm', args, { cwd: folder });
  return (JSON.parse(stdout) as Packed[])[0]!;
}

/** Runs a command in the test machine, or here if this kernel has ublk. */
async function underUblk(cwd: string, script: string): Promise<{ status: number; output: string }> {
  const stdout = new PassThrough();
  const output = text(stdout);
  const { status } = await runInVm({ command: ['sh', '-euc', script], cwd, stdout });
  stdout.end();
  return { status, output: await output };
}

describe.runIf(process.arch === 'x64')('the packages, installed without a compiler', () => {
  const project = mkdtempSync(join(tmpdir(), 'ublk-package-'));
  let root!: Packed;
  let platform!: Packed;

  beforeAll(async () => {
    const built = [join(CHECKOUT, 'dist/index.js'), join(PLATFORM, ADDON)];
    const missing = built.filter((file) => !existsSync(file));
    if (missing.length > 0) throw new Error(`npm run build comes first: no ${missing.join(', ')}`);
    root = await pack(CHECKOUT, project);
    platform = await pack(PLATFORM, project);
    writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
    const tarballs = [root, platform].map((one) => `./${one.filename}`);
    await execa('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', ...tarballs], {
      cwd: project,
      // What npm needs, and no cargo.
      env: { PATH: [join(process.execPath, '..'), '/usr/bin', '/bin'].join(':') },
    });
  });

  afterAll(() => rmSync(project, { recursive: true }));

  test('name the platform packages, of which npm installs the one that fits', () => {
    const packed = join(project, 'node_modules/ublk/package.json');
    const names = (path: string) =>
      (JSON.parse(readFileSync(path, 'utf8')) as { optionalDependencies?: Record<string, string> })
        .optionalDependencies;
    const { version } = JSON.parse(readFileSync(packed, 'utf8')) as { version: string };
    const platforms = ['x64-gnu', 'arm64-gnu', 'x64-musl', 'arm64-musl'];
    const expected = platforms.map((one) => [`ublk-linux-${one}`, version]);
    expect(names(packed)).toEqual(Object.fromEntries(expected));
    expect(names(join(CHECKOUT, 'package.json'))).toBeUndefined();
  });

  test('hold what they should and nothing else', () => {
    const paths = root.files.map((file) => file.path);
    const expected = [
      'package.json',
      'dist/index.js',
      'dist/index.d.ts',
      'native/binding.cjs',
      'native/binding.d.cts',
      'man/ublk.1',
    ];
    expect(paths).toEqual(expect.arrayContaining([...expected, 'LICENSE-MIT', 'LICENSE-APACHE']));
    const known =
      /^(bin\/ublk|docs\/.+\.(md|svg|json)|examples\/.+|vm\/README\.md|dist\/.+\.(js|d\.ts)|man\/ublk\.1|native\/binding\.(cjs|d\.cts)|udev\/9\d-ublk(-names)?\.rules|package\.json|[A-Z]+(-\w+)?(\.md)?)$/;
    expect(paths.filter((path) => !known.test(path))).toEqual([]);
    const inPlatform = platform.files.map((file) => file.path).sort();
    expect(inPlatform).toEqual(['README.md', 'package.json', ADDON]);
  });

  test('have what their README links to', () => {
    const text = readFileSync(join(project, 'node_modules/ublk/README.md'), 'utf8');
    const links = [...text.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map(([, link]) => link!);
    expect(links.length).toBeGreaterThan(10);
    const paths = new Set(root.files.map((file) => file.path));
    expect(links.filter((link) => !paths.has(link))).toEqual([]);
  });

  test('have one version', () => {
    const versions = [CHECKOUT, PLATFORM].map(
      (folder) =>
        (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string })
          .version,
    );
    expect(new Set(versions).size).toBe(1);
  });

  test('load neither the addon nor HTTP when they are imported', async () => {
    const program = `import { createRequire } from 'node:module';
      await import('ublk');
      const addons = Object.keys(createRequire(process.cwd() + '/x')('module')._cache);
      const builtins = process.moduleLoadList.filter((name) => name === 'NativeModule http');
      console.log(JSON.stringify([...addons, ...builtins]));`;
    const args = ['--input-type=module', '--eval', program];
    const { stdout } = await execa(process.execPath, args, { cwd: project });
    expect(JSON.parse(stdout)).toEqual([]);
  });

  test('compile against their types, strictly', async () => {
    writeFileSync(join(project, 'consumer.ts'), CONSUMER);
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(TSCONFIG));
    const compiler = join(CHECKOUT, 'node_modules/typescript/bin/tsc');
    const types = join(CHECKOUT, 'node_modules/@types');
    await execa('node', [compiler, '-p', '.', '--typeRoots', types], { cwd: project, all: true });
    expect(existsSync(join(project, 'consumer.js'))).toBe(true);
  });

  test.each(['5.7', 'latest'])(
    'compile with TypeScript %s, however it is set up',
    async (version) => {
      const compiler = mkdtempSync(join(tmpdir(), 'ublk-typescript-'));
      try {
        const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--prefix', '.'];
        const types = `@types/node@${TYPES_VERSION}`;
        await execa('npm', [...install, `typescript@${version}`], { cwd: compiler });
        await execa('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', types], {
          cwd: project,
        });
        writeFileSync(join(project, 'handlers.ts'), HANDLERS);
        const tsc = join(compiler, 'node_modules/typescript/bin/tsc');
        for (const setup of SETUPS) {
          // Another tsconfig.json lies there.
          const config = { compilerOptions: { ...STRICT, ...setup }, files: ['handlers.ts'] };
          writeFileSync(join(project, 'tsconfig.handlers.json'), JSON.stringify(config));
          const run = execa('node', [tsc, '-p', 'tsconfig.handlers.json'], { cwd: project });
          await expect(run).resolves.toMatchObject({ stdout: '' });
        }
      } finally {
        rmSync(compiler, { recursive: true });
      }
    },
  );

  test.each(['require', 'import'])('do nothing but define when taken with %s', async (how) => {
    const program = `
      (async () => {
        const ublk = await ${how}('ublk');
        const maps = require('fs').readFileSync('/proc/self/maps', 'utf8');
        console.log(Object.keys(ublk).sort().join(), maps.includes('${ADDON}'));
      })();
    `;
    const args = ['--input-type=commonjs', '--eval', program];
    const { stdout } = await execa('node', args, { cwd: project });
    expect(stdout).toBe(
      'IoError,ReactorPool,Service,UblkError,UblkErrorCode,applyOverlayChanges,' +
        'closeOnSignals,commitOverlay,connectService,createDevice,createOverlay,' +
        'createReactorPool,defineConfig,deleteDevice,deviceUsers,exportNbd,exportOverlay,' +
        'features,flattenOverlay,forkOverlay,formatSize,getDeviceInfo,handOver,handler,' +
        'handlerModule,latencyPercentile,listDevices,listOrphans,metrics,openControl,overlayCheck,' +
        'overlayDiff,overlayInfo,overlayTree,parseSize,planHandOver,prune,quiesceDevice,' +
        'rebaseOverlay,recoverDevice,resizeDevice,serve,setDeviceAffinity,stopDevice,streamOverlayChanges,' +
        'targets,telemetry false',
    );
  });

  test('serve, by program and by command', async () => {
    const { status, output } = await underUblk(
      project,
      `node consumer.js
      ublk=node_modules/.bin/ublk
      $ublk --version
      mkfifo ready
      $ublk add null --size 1MiB >ready & server=$!
      read -r path <ready
      $ublk info \${path#/dev/ublkb} --json
      kill $server
      wait $server
      $ublk list`,
    );
    const [program, version, info, list] = output.trim().split('\n');
    expect(status).toBe(0);
    expect(program).toBe('served 1048576 bytes as /dev/ublkb0');
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(JSON.parse(info!)).toMatchObject({ path: '/dev/ublkb0', state: 'live' });
    expect(list).toBe('no ublk devices');
  });
});
