/** The bytes of a request's data already moved by steps. */
export class Coverage {
  readonly #spans: { readonly from: number; readonly to: number }[] = [];

  /** Records a step over `length` bytes from `at` on. */
  add(at: number, length: number): void {
    this.#spans.push({ from: at, to: at + length });
  }

  /** Whether steps have moved each of the first `length` bytes. */
  reaches(length: number): boolean {
    let reached = 0;
    for (const { from, to } of this.#spans.toSorted((one, other) => one.from - other.from)) {
      if (from > reached) return false;
      reached = Math.max(reached, to);
    }
    return reached >= length;
  }
}
