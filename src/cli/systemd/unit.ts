import type { NativeTarget } from '../../native.ts';
import { toNativeOptions } from '../../options.ts';
import type { NamedOptions } from '../../service/config.ts';
import { RESTART_SIGNAL } from '../signals.ts';
import { escapePath, quotePath, quoteWord } from './words.ts';

/** The first line of a unit that ublk has written: ublk replaces and removes no other unit. */
export const MARK = '# Written by ublk service install';

/** What a unit serves, and how. */
export interface UnitInput {
  /** The words that start `ublk`. */
  readonly program: readonly string[];
  readonly version: string;
  /** The configuration, an absolute path. */
  readonly config: string;
  /** The control socket; undefined: the default one. */
  readonly socket: string | undefined;
  readonly devices: readonly NamedOptions[];
  /** Whether a reload is an upgrade: a new process takes the devices over. */
  readonly upgrades?: boolean | undefined;
}

/** How long users of devices have at the end of the service, in seconds. */
const PATIENCE_S = 90;

/** A unit of systemd that serves a configuration with `ublk serve`. */
export function unitText({
  program,
  version,
  config,
  socket,
  devices,
  upgrades,
}: UnitInput): string {
  const command = program.map(quoteWord).join(' ');
  const control = socket === undefined ? '' : ` --control ${quoteWord(socket)}`;
  const asked = socket === undefined ? '' : ` --socket ${quoteWord(socket)}`;
  const paths = [...new Set(devices.flatMap((one) => pathsOf(toNativeOptions(one).target)))];
  const nodes = paths.filter((path) => path.startsWith('/dev/'));
  const files = [config, ...paths.filter((path) => !nodes.includes(path))];
  const disks = devices.flatMap(({ name, id }) => {
    const numbered = id === undefined ? [] : [`/dev/ublkb${id}`];
    return [`/dev/ublk/by-name/${name}`, ...numbered].map((path) => targetOf(path));
  });
  const below = nodes.map((path) => `${escapePath(path)}.device`);
  return [
    `${MARK} (ublk ${version}).`,
    '[Unit]',
    `Description=ublk devices of ${config.replaceAll('%', '%%')}`,
    'Documentation=man:ublk(1)',
    '# What the devices stand on is there first, and goes last.',
    `RequiresMountsFor=${files.map(quotePath).join(' ')}`,
    ...below.map((unit) => `Wants=${unit}\nAfter=${unit}`),
    '# Mounts of the devices come after the service, and go before.',
    'Wants=remote-fs-pre.target',
    'Before=remote-fs-pre.target',
    ...disks.map((unit) => `Wants=${unit}\nBefore=${unit}`),
    'StartLimitIntervalSec=60',
    'StartLimitBurst=10',
    '',
    '[Service]',
    'Type=notify',
    'NotifyAccess=main',
    'ExecStartPre=-modprobe ublk_drv',
    `ExecStart=${command} serve ${quoteWord(config)}${control} --stop-after ${PATIENCE_S}`,
    `ExecReload=${command} ${upgrades ? 'upgrade --background' : 'service reload'}${asked}`,
    'Restart=on-failure',
    'RestartSec=100ms',
    '# A wrong configuration stays wrong.',
    'RestartPreventExitStatus=2',
    'KillMode=mixed',
    '# A stop gives users time to leave the devices; at a restart, users wait for the next server.',
    `RestartKillSignal=${RESTART_SIGNAL}`,
    `TimeoutStopSec=${PATIENCE_S + 30}s`,
    '# The service sends signs of life only while its reactors serve.',
    'WatchdogSec=30s',
    'OOMScoreAdjust=-1000',
    'LimitNOFILE=1048576',
    'LimitMEMLOCK=infinity',
    'TasksMax=infinity',
    '',
    '[Install]',
    'WantedBy=multi-user.target',
    '',
  ].join('\n');
}

/** The target that systemd orders all users of a block device after. */
function targetOf(path: string): string {
  return `blockdev@${escapePath(path).replaceAll('%', '%%')}.target`;
}

/** The files of a target and of the targets below. */
function pathsOf({ path, integrity, zones, targets = [] }: NativeTarget): string[] {
  const own = [path, integrity?.path, zones?.state].filter((one) => one !== undefined);
  return [...own.filter((one) => one.startsWith('/')), ...targets.flatMap(pathsOf)];
}
