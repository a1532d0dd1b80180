import type { Outcome } from '../../../src/errors.ts';
import type { NativeChannel } from '../../../src/native.ts';
import * as layout from '../../../src/handler/layout.ts';

const DEPTH = 4;
const MAX_PIECES = 2;
const REQUEST_COUNT = DEPTH * 2;
const ANSWERS = layout.CONTROL_WORDS + REQUEST_COUNT * layout.REQUEST_WORDS;
const PIECES = ANSWERS + REQUEST_COUNT * layout.ANSWER_WORDS;

/** What a reactor asks for. */
export interface Asked {
  tag?: number;
  op?: number;
  flags?: number;
  length?: number;
  offset?: number;
  generation?: number;
  epoch?: number;
}

/** A channel with the reactor's end in the test's hands. */
export class FakeChannel implements NativeChannel {
  readonly depth = DEPTH;
  readonly #memory = new ArrayBuffer((PIECES + DEPTH * MAX_PIECES * layout.PIECE_WORDS) * 4);
  readonly #words = new Uint32Array(this.#memory);
  readonly buffers: (ArrayBuffer | null)[] = Array.from(
    { length: DEPTH },
    () => new ArrayBuffer(8192),
  );
  readonly kept: number[] = [];
  wakes = 0;
  shows = 0;
  #asked = 0;
  #seen = 0;

  memory(): Outcome<ArrayBuffer> {
    return { value: this.#memory };
  }

  places() {
    return {
      version: layout.LAYOUT_VERSION,
      requests: layout.CONTROL_WORDS,
      requestCount: REQUEST_COUNT,
      answers: ANSWERS,
      answerCount: REQUEST_COUNT,
      pieces: PIECES,
      maxPieces: MAX_PIECES,
    };
  }

  buffer(tag: number): Outcome<ArrayBuffer | null> {
    return { value: this.buffers[tag]! };
  }

  keepBuffer(tag: number): void {
    this.kept.push(tag);
  }

  payer(): (debt: number) => void {
    return (debt) => {
      if (debt === layout.OWES_CALL) this.wakes += 1;
      if (debt !== layout.OWES_ANSWER) return;
      this.shows += 1;
      this.#words[layout.ANSWERS_TAIL]! += 1;
    };
  }

  looker(): () => boolean {
    return () => false;
  }

  waiter(): () => boolean {
    return () => false;
  }

  release(): void {}

  /** The reactor asks. */
  ask(asked: Asked): void {
    const { tag = 0, op = 0, flags = 0, length = 4096, offset = 0 } = asked;
    const { generation = 1, epoch = 0 } = asked;
    const index = this.#asked % REQUEST_COUNT;
    const at = layout.CONTROL_WORDS + index * layout.REQUEST_WORDS;
    this.#words[at + layout.REQUEST_HEAD] = tag | (op << 16) | (flags << 24);
    this.#words[at + layout.REQUEST_GENERATION] = generation;
    this.#words[at + layout.REQUEST_LENGTH] = length;
    this.#words[at + layout.REQUEST_EPOCH] = epoch;
    this.#words[at + layout.REQUEST_OFFSET_LOW] = offset >>> 0;
    this.#words[at + layout.REQUEST_OFFSET_HIGH] = Math.floor(offset / 2 ** 32);
    this.#asked += 1;
    this.#words[layout.REQUESTS_TAIL] = this.#asked;
  }

  /** The answers that have come since. */
  answers(): { tag: number; kind: number; count: number; generation: number; errno: number }[] {
    const answers = [];
    for (; this.#seen !== this.#words[layout.ANSWERS_TAIL]; this.#seen += 1) {
      const at = ANSWERS + (this.#seen % REQUEST_COUNT) * layout.ANSWER_WORDS;
      const head = this.#words[at + layout.ANSWER_HEAD]!;
      answers.push({
        tag: head & 0xffff,
        kind: (head >>> 16) & 0xff,
        count: head >>> 24,
        generation: this.#words[at + layout.ANSWER_GENERATION]!,
        errno: this.#words[at + layout.ANSWER_ERRNO]!,
      });
    }
    this.#words[layout.ANSWERS_HEAD] = this.#seen;
    return answers;
  }

  /** The place that the last answer names. */
  get place(): number {
    const at = ANSWERS + ((this.#seen - 1) % REQUEST_COUNT) * layout.ANSWER_WORDS;
    const upper = this.#words[at + layout.ANSWER_PLACE_HIGH]!;
    return upper * 2 ** 32 + this.#words[at + layout.ANSWER_PLACE_LOW]!;
  }

  /** A piece that a handler has answered with. */
  piece(tag: number, index: number) {
    const at = PIECES + (tag * MAX_PIECES + index) * layout.PIECE_WORDS;
    const word = (place: number): number => this.#words[at + place]!;
    return {
      backend: word(layout.PIECE_BACKEND),
      op: word(layout.PIECE_OP),
      at: word(layout.PIECE_AT),
      length: word(layout.PIECE_LENGTH),
      offset: word(layout.PIECE_OFFSET_HIGH) * 2 ** 32 + word(layout.PIECE_OFFSET_LOW),
    };
  }

  /** The steps of a tag have ended so. */
  stepped(tag: number, ...results: number[]): void {
    for (const [index, errno] of results.entries()) {
      const at = PIECES + (tag * MAX_PIECES + index) * layout.PIECE_WORDS;
      this.#words[at + layout.PIECE_ERRNO] = errno;
    }
    this.ask({ tag, op: layout.KIND_STEPPED });
  }

  /** Whether the peer sleeps until its bell rings. */
  get peerSleeps(): boolean {
    return this.#words[layout.PEER_WAITS] === layout.IN_EVENT_LOOP;
  }

  /** The reactor goes to sleep. */
  sleep(): void {
    this.#words[layout.REACTOR_SLEEPS] = 1;
  }
}
