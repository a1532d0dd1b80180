// What a run of the test machine can be told.

import type { Writable } from 'node:stream';

export interface VmOptions {
  /** The program and its arguments; none: an interactive shell on this terminal. */
  command: readonly string[];
  /** Kernel series, `7.3`, `7.2` or `6.12`. Default: the running kernel if it has ublk, else 7.3. */
  kernel?: string;
  /** Virtual processors. Default 2. */
  cpus?: number;
  /** Memory of the guest, in QEMU's notation. Default `8G`, or half of the host's if that is less. */
  memory?: string;
  /** One guest instruction is one nanosecond of guest time: slow, but measurements repeat. */
  icount?: boolean;
  /** Folders of the host that the guest may write to, at the same paths. */
  shares?: readonly string[];
  /** Working directory in the guest, by default the same as here. */
  cwd?: string;
  /** Variables for the command, beside those taken over from this process (see job.ts). */
  env?: Readonly<Record<string, string>>;
  /** The guest's PID 1. Default: a script of the machine's. With `systemd`, see vm/README.md. */
  init?: 'systemd' | undefined;
  /** A folder whose files are laid over the guest's before its PID 1 begins, such as `etc/fstab`. */
  root?: string | undefined;
  /** Seconds that the command may take once the guest has booted; 0: any. Default 1800. */
  timeout?: number;
  /**
   * What the guest sees as /dev/vda: the size of an empty disk, such as `2G`, or the absolute path of a
   * raw image, which keeps what the guest writes. Default: none.
   */
  disk?: string;
  /** Further arguments for QEMU; they make a machine of this run wherever it is. */
  qemu?: readonly string[];
  /** Show the guest's console on stderr. */
  verbose?: boolean;
  /** Where the command's output goes. Default: this process's. Not ended by the run. */
  stdout?: Writable;
  stderr?: Writable;
  /** Ends the machine. Without one, SIGINT, SIGTERM and SIGHUP end it. */
  signal?: AbortSignal;
}

export interface VmResult {
  /** The command's exit status, 128 + N if signal N ended it. */
  status: number;
  /** The last lines of the machine's console, where there was a machine. */
  console?: string;
}

/** The machine failed, not the command: it did not boot, panicked or ran out of time. */
export class VmError extends Error {
  override name = 'VmError';
  /** What a script should exit with: 124 when the time was up, else 125. */
  readonly status: number;

  constructor(message: string, status = 125) {
    super(message);
    this.status = status;
  }
}
