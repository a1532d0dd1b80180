/** The result of a check. */
export interface Finding {
  readonly name: string;
  /** `warn`: devices work with a limitation; `fail`: devices do not work. */
  readonly status: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** The command or step that fixes the problem. */
  readonly fix?: string;
}
