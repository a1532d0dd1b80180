import { invalid } from '../errors.ts';
import { suggest } from '../check.ts';
import { OPS } from '../request-op.ts';
import { Coverage } from './coverage.ts';
import * as layout from './layout.ts';
import { checkBytes, type HandlerRequest, type Step } from './request.ts';
import type { Piece } from './types.ts';
import type { Rings } from './rings.ts';

// To V8 an import is looked up at each use, and a module's own `const` is a constant.
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

/** Writes pieces where the reactor reads them. */
export class PieceWriter {
  readonly #rings: Rings;
  readonly #backends: ReadonlyMap<string, number>;
  // Most answers name the backend that the one before did.
  #lastName: string;
  #last = 0;

  constructor(rings: Rings, backends: readonly string[]) {
    this.#rings = rings;
    this.#backends = new Map(backends.map((name, index) => [name, index]));
    // Never undefined, which is what an answer without a backend names.
    this.#lastName = backends[0] ?? '';
  }

  /** Whether an answer has more pieces than the reactor takes at once. */
  areTooMany(answer: readonly Piece[]): boolean {
    return answer.length > this.#rings.maxPieces && this.#backends.size > 0;
  }

  /**
   * Writes the pieces that a request is made of; how many they are.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`: no pieces, or what cannot be one.
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
   * The steps that do what the pieces of a request say.
   *
   * @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT`: what cannot be a piece, or pieces that are not
   * the whole request.
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

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` for what cannot be a step. */
  checkStep({ backend, offset, at, length }: Step): void {
    this.backend(backend);
    checkBytes(offset, 'the offset of a step');
    checkPart(at, 'the place of a step');
    checkPart(length, 'the length of a step');
  }

  /** Writes steps; how many of them there is room for. */
  steps(tag: number, steps: readonly Step[]): number {
    const count = Math.min(steps.length, this.#rings.maxPieces);
    for (const [index, step] of steps.slice(0, count).entries()) {
      this.#write(tag, index, OPS.indexOf(step.op), step, step.at, step.length);
      this.#rings.words[this.#place(tag, index) + PIECE_ERRNO] = 0;
    }
    return count;
  }

  /** What a step has failed of, now that it has ended: 0, an errno, or `NOT_BEGUN`. */
  errno(tag: number, index: number): number {
    return this.#rings.words[this.#place(tag, index) + PIECE_ERRNO]!;
  }

  /** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless there is such a backend. */
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

/** Which bytes of a request a piece is: by default all from the end of the piece before it on. */
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

/** @throws {UblkError} `ERR_UBLK_INVALID_ARGUMENT` unless it is a number of bytes below 4 GiB. */
function checkPart(value: unknown, name: string): number {
  const bytes = checkBytes(value, name);
  if (bytes < 2 ** 32) return bytes;
  throw invalid(`${name} is ${bytes}; it must be less than 4 GiB`);
}
