import {
  lstatSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { checkName } from '../../check.ts';
import { invalid, messageOf, UblkError, UblkErrorCode } from '../../errors.ts';
import { isHandlerModule } from '../../handler/module.ts';
import { NAMES_RULES } from '../../names.ts';
import type { NamedOptions } from '../../service/config.ts';
import { loadConfig } from '../../service/load.ts';
import { installedProgram, refuseChangeable as refuseChangeableProgram } from '../installed.ts';
import { MARK, unitText } from '../systemd/unit.ts';
import { changeableByOthers } from '../trusted.ts';
import { namesRules } from './udev.ts';

/** The flags of `ublk service install` and `ublk service uninstall`. */
export interface InstallFlags {
  readonly name?: string;
  /** The folder that stands for `/`. */
  readonly prefix?: string;
  readonly dryRun?: true;
  /** Of the installation only: `systemctl reload` starts a new server, and keeps the devices. */
  readonly upgradeOnReload?: true;
}

/** A file that is to be written. */
interface Draft {
  readonly path: string;
  readonly text: string;
}

/** `ublk service install CONFIG` */
export async function install(
  path: string,
  flags: InstallFlags,
  version: string,
  program: () => readonly string[] = trustedProgram,
): Promise<void> {
  const unit = unitName(flags.name);
  const config = resolve(path);
  const devices = await loadConfig(config);
  refuseChangeable(config, config);
  for (const { target } of devices) {
    if (isHandlerModule(target)) refuseChangeableModule(target.url, config);
  }
  const socket = flags.name === undefined ? undefined : `/run/ublk-${flags.name}.sock`;
  const upgrades = flags.upgradeOnReload === true;
  const text = unitText({ program: program(), version, config, socket, devices, upgrades });
  const drafts = [
    { path: unitPath(unit, flags.prefix), text },
    { path: under(flags.prefix, `etc/udev/rules.d/${NAMES_RULES}`), text: namesRules() },
  ];
  if (flags.dryRun) {
    process.stdout.write(drafts.map((draft) => `# ${draft.path}\n${draft.text}`).join('\n'));
    return;
  }
  refuseForeign(drafts[0]!.path, unit);
  writeAll(drafts);
  warnOfLoss(devices);
  const steps = ['systemctl daemon-reload', 'udevadm control --reload'];
  const lines = drafts.map((draft) => `wrote ${draft.path}`);
  process.stdout.write(
    [...lines, next([...steps, `systemctl enable --now ${unit}`]), ''].join('\n'),
  );
}

/** `ublk service uninstall` */
export function uninstall(flags: InstallFlags): void {
  const unit = unitName(flags.name);
  const path = unitPath(unit, flags.prefix);
  if (stat(path) === undefined) {
    throw invalid(`there is no ${path}`, 'name the unit as at its installation: --name, --prefix');
  }
  refuseForeign(path, unit);
  if (flags.dryRun) {
    process.stdout.write(`would remove ${path}\n`);
    return;
  }
  attempt(`cannot remove ${path}`, () => rmSync(path));
  const left = next([`systemctl disable --now ${unit}`, 'systemctl daemon-reload']);
  process.stdout.write(`removed ${path}\n${left}\n`);
}

function unitName(name: string | undefined): string {
  if (name === undefined) return 'ublk.service';
  checkName(name, 'name');
  if (name !== 'service') return `ublk-${name}.service`;
  throw invalid(
    "the name 'service' would give the unit the control socket of the default one",
    'choose another --name, or leave --name out',
  );
}

function under(prefix: string | undefined, path: string): string {
  return join(prefix === undefined ? '/' : resolve(prefix), path);
}

function unitPath(unit: string, prefix: string | undefined): string {
  return under(prefix, `etc/systemd/system/${unit}`);
}

function trustedProgram(): readonly string[] {
  refuseChangeableProgram('systemd', 'ublk service install');
  return installedProgram();
}

/** The service runs a configuration as root: a module, or files for everybody who may read devices. */
function refuseChangeable(path: string, config: string): void {
  const changeable = changeableByOthers(realpathSync(path));
  if (changeable === undefined) return;
  throw new UblkError(
    UblkErrorCode.Permission,
    `systemd would serve ${config} as root, and others than root can change ${changeable}`,
    { hint: `put the file into a folder of root: sudo install -m 644 ${path} /etc/` },
  );
}

/** The handler of a device, which the service runs as well. */
function refuseChangeableModule(url: string, config: string): void {
  if (!url.startsWith('file:')) return;
  const path = fileURLToPath(url);
  if (stat(path) === undefined) throw invalid(`there is no ${path}, a module of ${config}`);
  refuseChangeable(path, config);
}

/** Refuses to touch a unit that ublk has not written. */
function refuseForeign(path: string, unit: string): void {
  const found = stat(path);
  if (found === undefined) return;
  const isOurs = found.isFile() && readFileSync(path, 'utf8').startsWith(MARK);
  if (isOurs) return;
  const hint = `move the file away, or choose another --name than that of ${unit}`;
  throw invalid(`${path} exists, and ublk has not written it`, hint);
}

function stat(path: string): ReturnType<typeof lstatSync> | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** Writes all files, or none where one cannot be written; no file is ever half there. */
function writeAll(drafts: readonly Draft[]): void {
  const written: string[] = [];
  try {
    for (const { path, text } of drafts) {
      attempt(`cannot write ${path}`, () => {
        mkdirSync(dirname(path), { recursive: true });
        written.push(`${path}.draft`);
        // The draft of a run that was killed, or a link, which a new draft must not follow.
        rmSync(`${path}.draft`, { force: true });
        writeFileSync(`${path}.draft`, text, { mode: 0o644, flag: 'wx' });
      });
    }
    for (const { path } of drafts) {
      attempt(`cannot write ${path}`, () => renameSync(`${path}.draft`, path));
    }
  } finally {
    for (const draft of written) rmSync(draft, { force: true });
  }
}

function attempt(what: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    throw new UblkError(UblkErrorCode.Permission, `${what}: ${messageOf(error)}`, {
      cause: error,
      hint: 'run the command as root, or name a folder with --prefix; --dry-run writes nothing',
    });
  }
}

/** A restart takes devices without recovery from their users. */
function warnOfLoss(devices: readonly NamedOptions[]): void {
  const names = devices.flatMap(({ name, recovery }) => (recovery === undefined ? [name] : []));
  if (names.length === 0) return;
  process.stderr.write(
    `warning: ${names.join(', ')}: without recovery, a restart of the service fails their users; ` +
      "recovery = 'reissue' lets the users wait\n",
  );
}

function next(commands: readonly string[]): string {
  return ['next:', ...commands.map((command) => `  ${command}`)].join('\n');
}
