import { invalid } from '../errors.ts';
import { suggest } from '../check.ts';
import { OPS } from '../request-op.ts';
import { Coverage } from './coverage.ts';
import * as layout from './layout.ts';
import { checkBytes, type HandlerRequest, type Step } from './request.ts';
import type { Piece } from './types.ts';
import type { Rings } from './rings.ts';

// V8 looks up an import at each use, but treats a module's own `const` as a constant.
const {
  PIECE_AT,
  PIECE_BACKEND,
  PIECE_ERRNO,
  PIECE_LENGTH,
  PIECE_OFFSET_HIGH,
  PIECE_OFFSET_LOW,
  PIECE_OP,
  PIECE_WORDS,
} = layout;

/** Writes pieces into the channel's memory for the reactor. */
export class PieceWriter {
  readonly #rings: Rings;
  readonly #backends: ReadonlyMap<string, number>;
  // Most answers name the same backend as the previous answer.
  #lastName: string;
  #last = 0;

  constructor(rings: Rings, backends: readonly string[]) {
    this.#rings = rings;
    this.#backends = new Map(backends.map((name, index) => [name, index]));
    // Never undefined, since an answer without a backend has the name undefined.
    this.#lastName = backends[0] ?? '';
  }

  /** Whether an answer has more pieces than a plan of the reactor. */
  areTooMany(answer: readonly Piece[]): boolean {
    return answer.length > this.#rings.maxPieces && this.#backends.size > 0;
  }

  /**
   * Writes the pieces of a request; returns the number of pieces.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for no pieces or an invalid piece.
   */
  plan(request: HandlerRequest, answer: readonly Piece[]): number {
    const { tag, opNumber, length } = request;
    if (answer.length === 0) throw invalid('the answer is a list of no pieces');
    let end = 0;
    for (const [index, piece] of answer.entries()) {
      const { at, bytes } = placeOf(piece, index, end, length);
      this.#write(tag, index, opNumber, piece, at, bytes);
      end = at + bytes;
    }
    return answer.length;
  }

  /**
   * The steps for the pieces of a request.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for an invalid piece, or pieces that do not
   * cover the request.
   */
  split(request: HandlerRequest, answer: readonly Piece[]): Step[] {
    const { op, length } = request;
    const steps: Step[] = [];
    const covered = new Coverage();
    let [end, all] = [0, 0];
    for (const [index, piece] of answer.entries()) {
      const { at, bytes } = placeOf(piece, index, end, length);
      const step = { op, backend: piece.backend, offset: piece.offset, at, length: bytes };
      this.checkStep(step);
      steps.push(step);
      covered.add(at, bytes);
      end = at + bytes;
      all += bytes;
    }
    const bytes = `${length} bytes of the ${op}`;
    if (!covered.reaches(length)) throw invalid(`the pieces are not all of the ${bytes}`);
    if (op === 'read' && all !== length)
      throw invalid(`the pieces have some of the ${bytes} twice`);
    return steps;
  }

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for an invalid step. */
  checkStep({ backend, offset, at, length }: Step): void {
    this.backend(backend);
    checkBytes(offset, 'the offset of a step');
    checkPart(at, 'the place of a step');
    checkPart(length, 'the length of a step');
  }

  /** Writes as many steps as fit; returns the number of written steps. */
  steps(tag: number, steps: readonly Step[]): number {
    const count = Math.min(steps.length, this.#rings.maxPieces);
    for (const [index, step] of steps.slice(0, count).entries()) {
      this.#write(tag, index, OPS.indexOf(step.op), step, step.at, step.length);
      this.#rings.words[this.#place(tag, index) + PIECE_ERRNO] = 0;
    }
    return count;
  }

  /** The result of an ended step: 0, an errno, or `NOT_BEGUN`. */
  errno(tag: number, index: number): number {
    return this.#rings.words[this.#place(tag, index) + PIECE_ERRNO]!;
  }

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for an unknown backend. */
  backend(name: string): number {
    if (name === this.#lastName) return this.#last;
    const backend = this.#backends.get(name);
    if (backend !== undefined) {
      this.#lastName = name;
      this.#last = backend;
      return backend;
    }
    const names = [...this.#backends.keys()];
    const hint = names.length === 0 ? 'give the handler backends' : suggest(String(name), names);
    throw invalid(`there is no backend '${name}'`, hint);
  }

  #write(
    tag: number,
    index: number,
    op: number,
    piece: { readonly backend: string; readonly offset: number },
    at: number,
    length: number,
  ): void {
    const { words } = this.#rings;
    const base = this.#place(tag, index);
    const offset = checkBytes(piece.offset, 'the offset of a piece');
    const low = offset >>> 0;
    words[base + PIECE_BACKEND] = this.backend(piece.backend);
    words[base + PIECE_OP] = op;
    words[base + PIECE_AT] = checkPart(at, 'the place of a piece');
    words[base + PIECE_LENGTH] = checkPart(length, 'the length of a piece');
    words[base + PIECE_OFFSET_LOW] = low;
    words[base + PIECE_OFFSET_HIGH] = (offset - low) / 2 ** 32;
  }

  #place(tag: number, index: number): number {
    const { pieces, maxPieces } = this.#rings;
    return pieces + (tag * maxPieces + index) * PIECE_WORDS;
  }
}

/** The range of a piece in the request: by default the rest from the end of the previous piece on. */
function placeOf(
  piece: Piece | null | undefined,
  index: number,
  end: number,
  length: number,
): { at: number; bytes: number } {
  if (piece == null) throw invalid(`piece ${index} of the answer is ${String(piece)}`);
  const at = piece.at ?? end;
  return { at, bytes: piece.length ?? length - at };
}

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless `value` is a number of bytes below 4 GiB. */
function checkPart(value: unknown, name: string): number {
  const bytes = checkBytes(value, name);
  if (bytes < 2 ** 32) return bytes;
  throw invalid(`${name} is ${bytes}; it must be less than 4 GiB`);
}
