/** What one check found. */
export interface Finding {
  readonly name: string;
  /** `warn`: it works, but not as well as it could; `fail`: it does not work. */
  readonly status: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** The command or step that mends it. */
  readonly fix?: string;
}
