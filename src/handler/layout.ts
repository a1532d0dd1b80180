// The words of a channel's memory. Generated from crates/ublk-core/src/bridge/layout.rs by
// `UBLK_WRITE_LAYOUT=1 cargo test -p ublk-core --lib layout`; do not edit.

/** Changes whenever a number below changes its meaning. */
export const LAYOUT_VERSION = 5;

/** Where requests have been written up to; the reactor's. */
export const REQUESTS_TAIL = 0;

/** Where requests have been taken up to; the peer's. */
export const REQUESTS_HEAD = 16;

/** How the peer waits: the peer sets it, the reactor takes it back when it wakes it. */
export const PEER_WAITS = 32;

/** Where answers have been written up to; the peer's. */
export const ANSWERS_TAIL = 48;

/** Where answers have been taken up to; the reactor's. */
export const ANSWERS_HEAD = 64;

/** Whether the reactor sleeps: it sets it, the peer takes it back when it wakes it. */
export const REACTOR_SLEEPS = 80;

/** The words before the first ring. */
export const CONTROL_WORDS = 96;

/** Awake. */
export const AWAKE = 0;

/** Asleep in its event loop: its bell is to be rung. */
export const IN_EVENT_LOOP = 1;

/** Asleep in a call of ours. */
export const IN_CALL = 2;

/** Of answers the reactor is owed nothing: it looks for them by itself. */
export const OWES_NOTHING = 0;

/** It sleeps, and is owed a call: it sees them then. */
export const OWES_CALL = 1;

/** It sleeps, and is owed the only one: it sleeps on where the kernel takes it from the peer. */
export const OWES_ANSWER = 2;

/** Words of a request. */
export const REQUEST_WORDS = 8;

/** Tag in bits 0 to 15, kind in 16 to 23, flags in 24 to 31. */
export const REQUEST_HEAD = 0;

/** The generation that the answer must carry. */
export const REQUEST_GENERATION = 1;

/** In bytes. */
export const REQUEST_LENGTH = 2;

/** Counts the buffers that the tag has had; another one is to be asked for when it changes. */
export const REQUEST_EPOCH = 3;

/** In bytes, the lower half. */
export const REQUEST_OFFSET_LOW = 4;

/** The upper half. */
export const REQUEST_OFFSET_HIGH = 5;

/** The kinds of a request up to here are `UBLK_IO_OP_*`. Steps have ended: their pieces say how. */
export const KIND_STEPPED = 128;

/** A flag: on stable storage before it is answered. */
export const FLAG_FUA = 1;

/** A flag: zeros keep their space. */
export const FLAG_NO_UNMAP = 2;

/** Words of an answer. */
export const ANSWER_WORDS = 4;

/** Tag in bits 0 to 15, kind in 16 to 23, number of pieces, or the backend, in 24 to 31. */
export const ANSWER_HEAD = 0;

/** The generation of the request. */
export const ANSWER_GENERATION = 1;

/** With `ANSWER_FAILED`: a positive errno. */
export const ANSWER_ERRNO = 2;

/** With `ANSWER_LANDED` and `ANSWER_REMAP`: where, in bytes, the lower half. */
export const ANSWER_PLACE_LOW = 2;

/** The upper half. */
export const ANSWER_PLACE_HIGH = 3;

/** The request has been done in full. */
export const ANSWER_DONE = 0;

/** It has failed. */
export const ANSWER_FAILED = 1;

/** It is where the tag's pieces say, and ends when they have been done. */
export const ANSWER_PLAN = 2;

/** The tag's pieces are to be done; then the request goes on. */
export const ANSWER_STEPS = 3;

/** It has failed, and its buffer must not be used again. */
export const ANSWER_SPOILT = 4;

/** It was a zone append, and has been done. */
export const ANSWER_LANDED = 5;

/** It has been done or has failed, and the kernel knows; the addon's. */
export const ANSWER_COMMITTED = 6;

/** The whole of it is in one place of a backend, and it ends when it has been done there. */
export const ANSWER_REMAP = 7;

/** Words of a piece. */
export const PIECE_WORDS = 8;

/** The backend's place in the list. */
export const PIECE_BACKEND = 0;

/** What to do, `UBLK_IO_OP_*`. */
export const PIECE_OP = 1;

/** Where in the request's buffer, in bytes. */
export const PIECE_AT = 2;

/** In bytes. */
export const PIECE_LENGTH = 3;

/** Where in the backend, in bytes, the lower half. */
export const PIECE_OFFSET_LOW = 4;

/** The upper half. */
export const PIECE_OFFSET_HIGH = 5;

/** What a step failed of, a positive errno; the reactor's. The peer leaves 0 there. */
export const PIECE_ERRNO = 6;

/** In place of an errno: it has not begun, because another failed. */
export const NOT_BEGUN = 4294967295;
