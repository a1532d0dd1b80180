import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

import { execa } from 'execa';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { findProgram } from '../../../scripts/debian.ts';
import { install, uninstall, type InstallFlags } from '../../../src/cli/commands/install.ts';
import { unitText } from '../../../src/cli/systemd/unit.ts';
import { escapePath } from '../../../src/cli/systemd/words.ts';
import { nameDisk } from '../../../src/names.ts';
import { targets } from '../../../src/targets/index.ts';

const isRoot = process.getuid?.() === 0;

/** A folder that only root can change, which /tmp is not. */
function trustedFolder(): string {
  const path = mkdtempSync('/run/ublk-install-');
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const text = (more: Partial<Parameters<typeof unitText>[0]> = {}): string => {
  const devices = [
    { name: 'data', target: targets.file('/srv/a b.img'), recovery: 'reissue' },
    { name: 'raw-1', id: 7, target: targets.linear([targets.file('/dev/disk/by-id/x-1')]) },
  ] as const;
  const program = ['/opt/node 20/bin/node', '/opt/100%/$HOME.js'];
  const config = '/etc/ublk.toml';
  return unitText({ program, version: '0.1.0', config, socket: undefined, devices, ...more });
};

describe('the unit of a service', () => {
  test('starts the service with the words as they are, and reloads it', () => {
    const program = String.raw`"/opt/node 20/bin/node" /opt/100%%/$$HOME.js`;
    expect(text()).toContain(`\nExecStart=${program} serve /etc/ublk.toml --stop-after 90\n`);
    expect(text()).toContain('\nRestartKillSignal=SIGUSR2\n');
    expect(text()).toContain(`\nExecReload=${program} service reload\n`);
    expect(text({ upgrades: true })).toContain(`\nExecReload=${program} upgrade --background\n`);
    const named = text({ socket: '/run/ublk-vms.sock' });
    expect(named).toContain('serve /etc/ublk.toml --control /run/ublk-vms.sock --stop-after 90\n');
    expect(named).toContain('service reload --socket /run/ublk-vms.sock\n');
  });

  test('stands on what its devices stand on, and below the mounts of its devices', () => {
    expect(text()).toContain('\nRequiresMountsFor=/etc/ublk.toml "/srv/a b.img"\n');
    expect(text()).toContain(String.raw`After=dev-disk-by\x2did-x\x2d1.device`);
    expect(text()).toContain(String.raw`Before=blockdev@dev-ublk-by\x2dname-data.target`);
    expect(text()).toContain(String.raw`Before=blockdev@dev-ublk-by\x2dname-raw\x2d1.target`);
    expect(text()).toContain('Before=blockdev@dev-ublkb7.target');
  });

  test.runIf(findProgram('systemd-analyze'))('is a unit to systemd', async () => {
    const folder = trustedFolder();
    const path = join(folder, 'ublk-x.service');
    const lines = text({ program: ['/bin/true', '/a b', '%'] }).split('\n');
    // The manual page is that of the installed package.
    writeFileSync(path, lines.filter((line) => !line.startsWith('Documentation=')).join('\n'));
    const { stderr } = await execa('systemd-analyze', ['verify', '--man=no', path]);
    expect(stderr.split('\n').filter((line) => line.includes('ublk'))).toEqual([]);
  });

  test.runIf(findProgram('systemd-escape')).each(['/', '/dev/ü-x/a b', '/.a//b.c:_', '/srv/x/'])(
    'names the unit of the path %s as systemd does',
    async (path) => {
      const { stdout } = await execa('systemd-escape', ['--path', path]);
      expect(escapePath(path)).toBe(stdout);
    },
  );
});

describe.runIf(isRoot)('ublk service install', () => {
  let root = '';
  let config = '';
  let said = '';
  let warned = '';
  const unit = (name = 'ublk'): string => join(root, `etc/systemd/system/${name}.service`);
  const rules = (): string => join(root, 'etc/udev/rules.d/96-ublk-names.rules');
  const run = (flags: InstallFlags = {}): Promise<void> =>
    install(config, { prefix: root, ...flags }, '0.1.0', () => ['/usr/bin/node', '/opt/main.js']);

  beforeEach(() => {
    root = trustedFolder();
    config = join(root, 'ublk.toml');
    writeFileSync(config, '[devices.data]\ntarget = { kind = "null", size = "1MiB" }\n');
    [said, warned] = ['', ''];
    const out = vi.spyOn(process.stdout, 'write');
    const err = vi.spyOn(process.stderr, 'write');
    out.mockImplementation((part) => ((said += String(part)), true));
    err.mockImplementation((part) => ((warned += String(part)), true));
    onTestFinished(() => (out.mockRestore(), err.mockRestore()));
  });

  test('writes a unit and the rules of names, and says what is next', async () => {
    await run();
    expect(readFileSync(unit(), 'utf8')).toContain(`main.js serve ${config} --stop-after`);
    expect(readFileSync(rules(), 'utf8')).toContain('SYMLINK+="ublk/by-name/$env{UBLK_NAME}"');
    expect(said).toContain('systemctl enable --now ublk.service');
    expect(warned).toContain('warning: data: without recovery, a restart of the service fails');
  });

  test('writes nothing with --dry-run, and prints both files', async () => {
    await run({ dryRun: true });
    expect(said).toContain(`# ${unit()}\n# Written by ublk service install`);
    expect(said).toContain(`# ${rules()}\n`);
    expect(existsSync(join(root, 'etc'))).toBe(false);
  });

  test('replaces its own unit; a named one has a control socket of its own', async () => {
    await run({ name: 'vms' });
    await run({ name: 'vms' });
    expect(readFileSync(unit('ublk-vms'), 'utf8')).toContain('--control /run/ublk-vms.sock');
    expect(existsSync(unit())).toBe(false);
  });

  test.each([
    ['a wrong configuration', () => writeFileSync(config, '[devices.data]\nid = -1\n'), {}],
    ['a wrong name', () => {}, { name: '../x' }],
    ['the name of the default socket', () => {}, { name: 'service' }],
    ['a folder that is a file', () => {}, { prefix: '/dev/null' }],
  ])('refuses %s, and touches nothing', async (_, prepare, flags) => {
    prepare();
    await expect(run(flags)).rejects.toThrow(/./);
    expect(existsSync(join(root, 'etc'))).toBe(false);
  });

  test('refuses a configuration that others can change', async () => {
    config = join(root, 'open.json');
    writeFileSync(config, readFileSync(join(root, 'ublk.toml')));
    writeFileSync(config, '{"devices":{"data":{"target":{"kind":"null","size":"1MiB"}}}}');
    await execa('chmod', ['666', config]);
    await expect(run()).rejects.toThrow('others than root can change');
    expect(existsSync(join(root, 'etc'))).toBe(false);
  });

  test('refuses the module of a handler that others can change, or that is not there', async () => {
    const module = join(root, 'disk.mjs');
    const target = { kind: 'module', url: module };
    config = join(root, 'modules.json');
    writeFileSync(config, JSON.stringify({ devices: { data: { target } } }));
    await expect(run()).rejects.toThrow(`there is no ${module}`);
    writeFileSync(module, 'export default { size: 4096, read() {} };');
    await execa('chmod', ['666', module]);
    await expect(run()).rejects.toThrow(`others than root can change ${module}`);
    expect(existsSync(join(root, 'etc'))).toBe(false);
    await execa('chmod', ['644', module]);
    await run();
    expect(existsSync(unit())).toBe(true);
  });

  test('refuses to replace or to remove a unit that ublk has not written', async () => {
    mkdirSync(join(root, 'etc/systemd/system'), { recursive: true });
    writeFileSync(unit(), '[Service]\n');
    await expect(run()).rejects.toThrow('exists, and ublk has not written it');
    expect(() => uninstall({ prefix: root })).toThrow('exists, and ublk has not written it');
    expect(readFileSync(unit(), 'utf8')).toBe('[Service]\n');
    expect(existsSync(rules())).toBe(false);
  });

  test('follows no link that lies in the place of a draft', async () => {
    const planted = join(root, 'planted');
    writeFileSync(planted, 'kept');
    for (const path of [unit(), rules()]) {
      mkdirSync(dirname(path), { recursive: true });
      symlinkSync(planted, `${path}.draft`);
    }
    await run();
    expect(readFileSync(planted, 'utf8')).toBe('kept');
    expect(readFileSync(unit(), 'utf8')).toContain('[Service]');
    expect(existsSync(`${unit()}.draft`)).toBe(false);
  });

  test('is undone by ublk service uninstall', async () => {
    await run();
    uninstall({ prefix: root, dryRun: true });
    expect(existsSync(unit())).toBe(true);
    uninstall({ prefix: root });
    expect(existsSync(unit())).toBe(false);
    expect(() => uninstall({ prefix: root })).toThrow(`there is no ${unit()}`);
  });
});

describe('the name of a disk', () => {
  const places = () => {
    const root = mkdtempSync('/tmp/ublk-names-');
    onTestFinished(() => rmSync(root, { recursive: true }));
    const block = join(root, 'block');
    for (const part of ['', 'ublkb3p1']) {
      mkdirSync(join(block, 'ublkb3', part), { recursive: true });
      writeFileSync(join(block, 'ublkb3', part, 'uevent'), '');
    }
    writeFileSync(join(block, 'ublkb3/diskseq'), '41\n');
    writeFileSync(join(root, '96-ublk-names.rules'), '');
    return { folder: join(root, 'names'), rules: [root], block, uid: 0 };
  };
  const asked = (block: string, part = ''): string =>
    readFileSync(join(block, 'ublkb3', part, 'uevent'), 'utf8');

  test('is left for udev under the sequence number, and udev is asked to look', () => {
    const at = places();
    nameDisk(3, 'data', at);
    expect(readFileSync(join(at.folder, '41'), 'utf8')).toBe('UBLK_NAME=data\n');
    expect([asked(at.block), asked(at.block, 'ublkb3p1')]).toEqual(['change', 'change']);
  });

  test('follows no link that lies in the place of its draft', () => {
    const at = places();
    const planted = join(at.block, 'planted');
    writeFileSync(planted, 'kept');
    mkdirSync(at.folder);
    symlinkSync(planted, join(at.folder, `.41.${process.pid}`));
    nameDisk(3, 'data', at);
    expect(readFileSync(planted, 'utf8')).toBe('kept');
    expect(readFileSync(join(at.folder, '41'), 'utf8')).toBe('UBLK_NAME=data\n');
  });

  test.each([
    ['without the rules', { rules: ['/nowhere'] }, 'data'],
    ['where the server is not root', { uid: 1000 }, 'data'],
    ['without a name', {}, undefined],
  ])('is not left %s', (_, other, name) => {
    const at = { ...places(), ...other };
    nameDisk(3, name, at);
    expect(existsSync(at.folder)).toBe(false);
    expect(asked(at.block)).toBe('');
  });
});
