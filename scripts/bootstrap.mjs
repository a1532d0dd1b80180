#!/usr/bin/env node
// `node scripts/bootstrap.mjs FILE ARGS…` runs a TypeScript file of this checkout, on a machine
// where nothing has been installed yet. It is the only plain JavaScript here and imports nothing
// but Node, because it runs before the packages that the rest is written with.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { join, resolve } from 'node:path';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The same range as `engines` in package.json. */
function nodeIsSupported() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  return (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major >= 24;
}

/** Whether node_modules is what package-lock.json says: npm records there what it installed. */
function packagesAreInstalled() {
  const record = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(record)) return false;
  const packagesOf = (file) => JSON.parse(readFileSync(file, 'utf8')).packages;
  const installed = packagesOf(record);
  return Object.entries(packagesOf(join(root, 'package-lock.json'))).every(
    ([path, { optional, version }]) =>
      path === '' || optional || installed[path]?.version === version,
  );
}

function installPackages() {
  console.error("Installing this checkout's npm packages (npm install), once…");
  // Under `npm run`, the very npm that runs us; its path is that of a script, not of a program.
  const [program, ...first] = process.env.npm_execpath
    ? [process.execPath, process.env.npm_execpath]
    : ['npm'];
  const { status, error } = spawnSync(
    program,
    // Not `npm ci`: it refuses a lockfile without the packages of platforms that the registry it
    // was made with does not have. This installs what the lockfile says and writes neither file.
    [...first, 'install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'],
    { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] },
  );
  if (status === 0) return;
  const reason = error ? `npm could not be started: ${error.message}` : 'see what npm said above';
  fail(`npm install failed (${reason}). Run it by hand in ${root} once the cause is mended.`);
}

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

const [file, ...args] = process.argv.slice(2);
if (file === undefined) fail('usage: node scripts/bootstrap.mjs FILE ARGS…');
if (process.platform !== 'linux') {
  fail(`ublk is a driver of the Linux kernel; this is ${process.platform}. Use a Linux machine.`);
}
if (!nodeIsSupported()) {
  fail(
    `Node ${process.versions.node} is too old: 20.19, 22.12, or 24 and later are supported. ` +
      'Install a newer Node and run the same command again.',
  );
}
if (!packagesAreInstalled()) installPackages();

// Loaded into this process instead of a child: signals, exit status and terminal need no relay.
const { register } = await import('tsx/esm/api');
register();
const entry = resolve(root, file);
process.argv = [process.execPath, entry, ...args];
await import(pathToFileURL(entry).href);
