import { emitKeypressEvents } from 'node:readline';
import type { ReadStream, WriteStream } from 'node:tty';

/** A key, by its name in `node:readline`. */
export interface Key {
  readonly name?: string | undefined;
  readonly ctrl?: boolean | undefined;
}

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

/**
 * A terminal that a command fills: the alternate screen, so that the lines of before come back at the end. A
 * frame that comes before the terminal has taken the last one is left out: a slow line shows fewer frames, and
 * each of them is new.
 */
export class Screen {
  readonly #output: WriteStream;
  readonly #input: ReadStream;
  readonly #hear: (text: string | undefined, key: Key) => void;
  #shown: readonly string[] = [];
  #isBusy = false;

  constructor(output: WriteStream, input: ReadStream, onKey: (key: Key) => void) {
    this.#output = output;
    this.#input = input;
    this.#hear = (_text, key) => onKey(key);
    emitKeypressEvents(input);
    if (input.isTTY) input.setRawMode(true);
    input.on('keypress', this.#hear).resume();
    output.write(ENTER);
    output.on('resize', this.#forget);
  }

  get columns(): number {
    return this.#output.columns;
  }

  get rows(): number {
    return this.#output.rows;
  }

  /** Shows lines in place of those before; only lines that have changed are sent. */
  show(lines: readonly string[]): void {
    if (this.#isBusy) return;
    const fitting = lines.slice(0, this.rows);
    const parts = fitting.map((text, row) =>
      text === this.#shown[row] ? '' : `\x1b[${row + 1};1H${text}${CLEAR_LINE}`,
    );
    if (fitting.length < this.#shown.length) {
      parts.push(`\x1b[${fitting.length + 1};1H${CLEAR_BELOW}`);
    }
    this.#shown = fitting;
    const frame = parts.join('');
    if (frame === '') return;
    this.#isBusy = true;
    this.#output.write(`${frame}${HOME}`, () => (this.#isBusy = false));
  }

  /** Everything is sent anew. */
  readonly #forget = (): void => {
    this.#shown = [];
    this.#output.write(`${HOME}${CLEAR_BELOW}`);
  };

  [Symbol.dispose](): void {
    this.#output.off('resize', this.#forget);
    this.#input.off('keypress', this.#hear).pause();
    if (this.#input.isTTY) this.#input.setRawMode(false);
    this.#output.write(LEAVE);
  }
}
