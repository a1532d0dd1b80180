// The command line of QEMU. Pure functions.

export type Accelerator = 'kvm' | 'tcg' | 'icount';

export interface Hardware {
  accelerator: Accelerator;
  cpus: number;
  memory: string;
  /** Kernel image and initramfs. */
  image: string;
  initramfs: string;
  /** Sockets of virtiofsd by tag. */
  folders: ReadonlyMap<string, string>;
  /** Sockets of the ports. */
  console: string;
  stdout: string;
  stderr: string;
  status: string;
  /** Connect a console of the guest (hvc0) to QEMU's own terminal. */
  terminal: boolean;
  /** PID 1 is systemd, which boots to multi-user.target and reports failures on the console. */
  systemd: boolean;
  /** A raw image for /dev/vda. */
  disk?: string | undefined;
  /** Let the kernel report its whole boot on the console. */
  verbose: boolean;
  /** Arguments added as they are. */
  further: readonly string[];
}

const ACCELERATION: Record<Accelerator, string> = {
  kvm: '-accel kvm -cpu host',
  // Without cx16: QEMU 7.2 corrupts the flags register in cmpxchg16b, and Linux 6.12 uses it much.
  tcg: '-accel tcg,thread=multi,tb-size=1024 -cpu max,-cx16',
  // One nanosecond of guest time per instruction, on one thread: the same run gives the same time.
  icount: '-accel tcg,thread=single,tb-size=1024 -cpu max,-cx16 -icount shift=0,sleep=off',
};

export function accelerationArguments(accelerator: Accelerator): string[] {
  return ACCELERATION[accelerator].split(' ');
}

export function qemuArguments(hardware: Hardware): string[] {
  const { cpus, memory, image, initramfs, terminal, disk } = hardware;
  const parts = [
    // No option ROMs to wait for, and the end of the guest is the end of QEMU.
    '-nodefaults -no-user-config -display none -vga none -nic none -no-reboot'.split(' '),
    accelerationArguments(hardware.accelerator),
    ['-smp', String(cpus), '-m', memory, '-machine', 'memory-backend=mem'],
    // virtiofsd reads and writes the guest's memory itself, so it must be shared.
    ['-object', `memory-backend-memfd,id=mem,size=${memory},share=on`],
    ['-kernel', image, '-initrd', initramfs, '-append', kernelArguments(hardware)],
    ['-chardev', socket('console', hardware.console), '-serial', 'chardev:console'],
    ['-device', 'virtio-serial-pci'],
    port(1, 'stdout', hardware.stdout),
    port(2, 'stderr', hardware.stderr),
    port(3, 'status', hardware.status),
    [...hardware.folders].flatMap(([tag, path]) => folder(tag, path)),
    terminal ? TERMINAL.split(' ') : [],
    disk === undefined ? [] : scratchDisk(disk),
    [...hardware.further],
  ];
  return parts.flat();
}

const TERMINAL = '-chardev stdio,id=terminal,signal=off -device virtconsole,chardev=terminal,nr=0';

function kernelArguments({ verbose, systemd }: Hardware): string {
  // A guest that oopses is of no more use: end at once, with the report on the console.
  // On a busy host the kernel would come to mistrust its best clock and take a slow one.
  const all = `console=ttyS0 panic=-1 oops=panic tsc=reliable${verbose ? '' : ' quiet'}`;
  return systemd ? `${all} systemd.unit=multi-user.target systemd.show_status=yes` : all;
}

function socket(id: string, path: string): string {
  return `socket,id=${id},path=${escape(path)}`;
}

function port(number: number, id: string, path: string): string[] {
  const device = `virtserialport,chardev=${id},nr=${number},name=${id}`;
  return ['-chardev', socket(id, path), '-device', device];
}

function folder(tag: string, path: string): string[] {
  const device = `vhost-user-fs-pci,chardev=fs-${tag},tag=${tag},queue-size=1024`;
  return ['-chardev', socket(`fs-${tag}`, path), '-device', device];
}

function scratchDisk(path: string): string[] {
  const drive = `file=${escape(path)},if=none,id=disk,format=raw,discard=unmap,cache=unsafe`;
  return ['-drive', drive, '-device', 'virtio-blk-pci,drive=disk'];
}

/** A comma ends a value of QEMU's options unless doubled. */
function escape(path: string): string {
  return path.replaceAll(',', ',,');
}
