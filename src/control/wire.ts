import type { Duplex } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as pause } from 'node:timers/promises';

import type { Failure } from '../errors.ts';

/** The protocol of a hand-over in the header `Upgrade` of HTTP; another version is another protocol. */
export const HAND_OVER = 'ublk-hand-over-1';
/** The path of the request that begins a hand-over. */
export const HAND_OVER_PATH = '/v1/hand-over';

/** A device of a hand-over. */
export interface HandedDevice {
  readonly name: string;
  readonly id: number;
  /** In how many threads the device's handler keeps state; absent without a handler. */
  readonly states?: number | undefined;
}

/** The messages of a hand-over in their order; docs/architecture.md has the walk of one hand-over. */
export type Message =
  | {
      /** The old server: its devices, and what the new server needs beside the configuration. */
      readonly message: 'hello';
      readonly pid: number;
      readonly version: string;
      /** The file of the configuration; absent for a service of a program. */
      readonly config?: string | undefined;
      readonly devices: readonly HandedDevice[];
      readonly control: { readonly path: string; readonly group?: string | undefined };
      /** What `ublk serve` leaves to `ublk upgrade`. */
      readonly serving?: object | undefined;
    }
  | {
      /** The new server: every target has been opened and compared, and nothing has changed yet. */
      readonly message: 'ready';
      readonly pid: number;
      readonly devices: readonly HandedDevice[];
    }
  | {
      /** The old server keeps its devices: the new server must leave what it has of them. */
      readonly message: 'refused';
      readonly error: Failure;
    }
  | {
      /** The old server has left the device, and waits for `alive`. */
      readonly message: 'yours';
      readonly name: string;
      /** The state of the device's handler, as text. */
      readonly state?: string | undefined;
    }
  | {
      /** The new server serves the device. */
      readonly message: 'alive';
      readonly name: string;
    }
  | {
      /** The old server has closed its sockets. */
      readonly message: 'bye';
    }
  | {
      /** The new server has opened its sockets; from now on the devices are its own. */
      readonly message: 'done';
    }
  | {
      /** The new server has left all devices of the hand-over again. */
      readonly message: 'failed';
      readonly error: Failure;
    }
  | {
      /** The old server serves its devices again, but for `lost`. */
      readonly message: 'kept';
      readonly lost: readonly (HandedDevice & { readonly error: Failure })[];
    };

/** One of the messages. */
export type MessageOf<Name extends Message['message']> = Extract<Message, { message: Name }>;

/** What a server hears of the other one. */
export type Heard = Message | { readonly message: 'end' } | { readonly message: 'silence' };

/** The longest line, in bytes: more than the state of a handler, 64 MiB in Base64. */
const LONGEST = 96 << 20;

/** A connection of a hand-over: one line of JSON for each message, either way. */
export class Wire {
  readonly #socket: Duplex;
  readonly #messages: Message[] = [];
  readonly #decoder = new StringDecoder();
  #rest = '';
  #isOver = false;
  #wake: () => void = () => {};

  /** @param head Bytes of the peer that came with the end of the HTTP request or answer. */
  constructor(socket: Duplex, head: Buffer) {
    this.#socket = socket;
    const end = (): void => {
      this.#isOver = true;
      this.#wake();
    };
    // A peer that has died resets the connection; the end of the connection says as much.
    socket.on('error', end).on('end', end).on('close', end);
    // Sockets of a server of HTTP refuse an encoding.
    socket.on('data', (part: Buffer) => this.#take(part));
    if (head.length > 0) this.#take(head);
  }

  send(message: Message): void {
    if (!this.#isOver) this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** The next message; `end`, where the peer has ended the connection or has died; `silence` after `limitMs`. */
  async next(limitMs?: number): Promise<Heard> {
    const over = new AbortController();
    const { signal } = over;
    const silence = limitMs !== undefined && pause(limitMs, true, { signal }).catch(() => true);
    try {
      while (this.#messages.length === 0 && !this.#isOver) {
        const woken = new Promise<false>((resolve) => (this.#wake = () => resolve(false)));
        if (await Promise.race(silence === false ? [woken] : [woken, silence])) {
          return { message: 'silence' };
        }
      }
      return this.#messages.shift() ?? { message: 'end' };
    } finally {
      over.abort();
    }
  }

  /** Ends the connection after the messages that have been sent. */
  end(): void {
    this.#isOver = true;
    this.#socket.end();
    this.#socket.resume();
    this.#wake();
  }

  #take(part: Buffer): void {
    const text = this.#decoder.write(part);
    this.#rest += text;
    if (this.#rest.length > LONGEST) this.#socket.destroy();
    // A long line comes in many parts: each look at all of it would copy it.
    if (!text.includes('\n')) return;
    const lines = this.#rest.split('\n');
    this.#rest = lines.pop()!;
    try {
      for (const line of lines) this.#messages.push(JSON.parse(line) as Message);
    } catch {
      this.#socket.destroy();
    }
    this.#wake();
  }
}
