// The two shell scripts that tell the guest what to do. Pure functions.

/** Variables of this process that the command sees in the guest. */
const PASSED_ON =
  /^(PATH|HOME|USER|LOGNAME|LANG|LC_.*|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|CI|UBLK_.*|VITEST.*|NODE_OPTIONS|NODE_ENV|RUST_BACKTRACE|RUST_LOG|CARGO_HOME|RUSTUP_HOME)$/;

export interface Job {
  command: readonly string[];
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
  /** The modules of the guest's kernel, on the host. */
  modules: string;
  /** Writable folders, by their virtiofs tags. */
  shares: ReadonlyMap<string, string>;
  /** Folders that must be visible in the guest even where it has a /tmp of its own. */
  keep: readonly string[];
  /** Seconds after which the guest lists its stuck tasks; 0: never. */
  limit: number;
  /** The guest's PID 1. */
  init: 'script' | 'systemd';
  /** A folder whose files are laid over the guest's; '' for none. */
  root: string;
  /** The guest's clock must go as the host's. */
  steady: boolean;
  /** `rows R cols C` of the terminal for an interactive shell; empty without one. */
  terminal: string;
}

/** Variables for the guest's own scripts (guest/*.sh). */
export function jobScript(job: Job): string {
  const shares = [...job.shares].map(([tag, dir]) => `${tag} ${dir}`);
  const keep = job.keep.filter((dir) => dir.startsWith('/tmp/'));
  return Object.entries({
    modules: job.modules,
    shares: shares.join('\n'),
    keep: keep.join('\n'),
    limit: String(job.limit),
    init: job.init,
    root: job.root,
    steady: job.steady ? 'yes' : '',
    terminal: job.terminal,
  })
    .map(([name, value]) => `${name}=${quote(value)}\n`)
    .join('');
}

/** The command, in its directory, with its variables. */
export function commandScript({ command, cwd, env }: Job): string {
  const variables = Object.entries(env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return [
    ...variables.map(([name, value]) => `export ${name}=${quote(value)}`),
    `cd ${quote(cwd)} || exit 126`,
    `exec ${command.map(quote).join(' ')}`,
    '',
  ].join('\n');
}

/** The variables taken over from the caller, with a PATH that finds the system's programs too. */
export function passedEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  const passed = Object.entries(env).filter(([name]) => PASSED_ON.test(name));
  const path = [env.PATH, '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];
  return { HOME: '/root', ...Object.fromEntries(passed), PATH: path.filter(Boolean).join(':') };
}

/** One word of a POSIX shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
