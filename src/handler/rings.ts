import { UblkError, UblkErrorCode, unwrap } from '../errors.ts';
import type { NativeChannel } from '../native.ts';
import * as layout from './layout.ts';

// V8 looks up an import at each use, but treats a module's own `const` as a constant.
const {
  ANSWER_ERRNO,
  ANSWER_GENERATION,
  ANSWER_HEAD,
  ANSWER_PLACE_HIGH,
  ANSWER_WORDS,
  ANSWERS_HEAD,
  ANSWERS_TAIL,
  AWAKE,
  IN_EVENT_LOOP,
  LAYOUT_VERSION,
  OWES_ANSWER,
  OWES_CALL,
  OWES_NOTHING,
  PEER_WAITS,
  REACTOR_SLEEPS,
  REQUEST_WORDS,
  REQUESTS_HEAD,
  REQUESTS_TAIL,
} = layout;

/** JavaScript's ends of a queue's rings; the reactor, a thread in Rust, has the other ends. */
export class Rings {
  /** The words of the channel, for reading requests and writing pieces in place. */
  readonly words: Uint32Array;
  /** The first word of the pieces of tag 0, and the number of pieces of a tag. */
  readonly pieces: number;
  readonly maxPieces: number;
  readonly #requests: number;
  readonly #requestMask: number;
  readonly #answers: number;
  readonly #answerCount: number;
  readonly #give: (debt: number) => void;
  // The words of the channel as signed integers, for Atomics.
  readonly #shared: Int32Array;
  #requestsHead = 0;
  #answersTail = 0;
  #answersHead = 0;
  #published = 0;
  #debt: number = OWES_NOTHING;

  constructor(channel: NativeChannel) {
    this.#give = channel.payer();
    const places = channel.places();
    if (places.version !== LAYOUT_VERSION) {
      throw new UblkError(
        UblkErrorCode.Internal,
        `the addon has layout ${places.version} of its rings, and this is ${LAYOUT_VERSION}`,
        { hint: 'the package and its addon are of different versions; install them anew' },
      );
    }
    this.pieces = places.pieces;
    this.maxPieces = places.maxPieces;
    this.#requests = places.requests;
    this.#requestMask = places.requestCount - 1;
    this.#answers = places.answers;
    this.#answerCount = places.answerCount;
    const memory = unwrap(channel.memory());
    this.words = new Uint32Array(memory);
    this.#shared = new Int32Array(memory);
  }

  /** The number of present requests. */
  get pending(): number {
    return (Atomics.load(this.#shared, REQUESTS_TAIL) - this.#requestsHead) | 0;
  }

  /** Takes the next request, which must exist; returns the first word. */
  take(): number {
    const at = this.#requests + (this.#requestsHead & this.#requestMask) * REQUEST_WORDS;
    this.#requestsHead = (this.#requestsHead + 1) | 0;
    return at;
  }

  /** Writes an answer, invisible to the reactor until {@link flush}; false without room. */
  answer(head: number, generation: number, detail: number): boolean {
    const tail = this.#answersTail;
    const { words } = this;
    if (((tail - this.#answersHead) | 0) >= this.#answerCount) {
      this.#answersHead = Atomics.load(this.#shared, ANSWERS_HEAD);
      if (((tail - this.#answersHead) | 0) >= this.#answerCount) return false;
    }
    const at = this.#answers + (tail & (this.#answerCount - 1)) * ANSWER_WORDS;
    words[at + ANSWER_HEAD] = head;
    words[at + ANSWER_GENERATION] = generation;
    words[at + ANSWER_ERRNO] = detail;
    // A place may need two words.
    words[at + ANSWER_PLACE_HIGH] = detail > 0xffffffff ? detail / 2 ** 32 : 0;
    this.#answersTail = (tail + 1) | 0;
    return true;
  }

  /** Shows the reactor the answers, and wakes a sleeping reactor. */
  flush(): void {
    this.publish();
    this.pay();
  }

  /**
   * Frees the room of the taken requests, then shows the reactor the answers, or records an owed
   * wake-up. The order matters: the reactor writes another request as soon as an answer is visible,
   * and must find room.
   */
  publish(): void {
    Atomics.store(this.#shared, REQUESTS_HEAD, this.#requestsHead);
    const count = (this.#answersTail - this.#published) | 0;
    if (count === 0) return;
    this.#published = this.#answersTail;
    if (count === 1 && Atomics.load(this.#shared, REACTOR_SLEEPS) !== 0) {
      this.#debt = OWES_ANSWER;
      return;
    }
    Atomics.store(this.#shared, ANSWERS_TAIL, this.#answersTail);
    // After the store of the tail: a reactor about to sleep looks at the tail again.
    if (Atomics.load(this.#shared, REACTOR_SLEEPS) === 0) return;
    if (Atomics.exchange(this.#shared, REACTOR_SLEEPS, 0) !== 0) this.#debt = OWES_CALL;
  }

  /** Wakes the reactor if owed, before the next answer. */
  pay(): void {
    const debt = this.takeDebt();
    if (debt !== OWES_NOTHING) this.#give(debt);
  }

  /** The owed wake-up, for a caller that passes the value to the addon. */
  takeDebt(): number {
    const debt = this.#debt;
    this.#debt = OWES_NOTHING;
    return debt;
  }

  /** Announces that this thread sleeps until the bell rings; false with requests present. */
  maySleep(): boolean {
    Atomics.store(this.#shared, PEER_WAITS, IN_EVENT_LOOP);
    // Looks again: from here on the reactor rings for new requests.
    if (this.pending === 0) return true;
    Atomics.store(this.#shared, PEER_WAITS, AWAKE);
    return false;
  }
}
