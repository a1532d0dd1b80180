// What `npm start` and its job tell each other: the spec as an argument, messages as lines of JSON.

import type { BufferMode, Counters } from '../../src/info.ts';

/** A folder or file of this machine, and where it goes in the tree that is copied. */
export interface Root {
  from: string;
  to: string;
}

/** What the job is asked to do. */
export interface JobSpec {
  /** The user's image, which is copied; none: one is made of the files. */
  image?: string | undefined;
  /** The size of an image that is made, in bytes. */
  size: number;
  /** The files to copy in. */
  roots: readonly Root[];
  queues: number;
  buffers?: BufferMode | undefined;
  /** An empty disk to work on, or a folder in which one of its own can be made. */
  scratch: { disk: string } | { folder: string };
}

/** The job's steps, in their order. */
export const STEPS = {
  gather: 'Gather the files',
  image: 'Make the image',
  serve: 'Serve it with examples/serve-image.ts and mount it',
  copy: 'Copy the files in',
  verify: 'Mount it afresh, read everything back, compare checksums',
  check: 'Unmount it, check it with e2fsck',
  compare: "Measure it beside the kernel's loop driver on the same image",
} as const;

export type Step = keyof typeof STEPS;

/** One line of the job's output. */
export type Message =
  /** It runs; the first message. */
  | { hello: true }
  /** How far a step is. */
  | { step: Step; progress: string }
  /** A step is done, and what came of it. */
  | { step: Step; done: string }
  | { failed: string }
  | { result: JobResult };

/** What the device was, as examples/serve-image.ts tells it. */
export interface ServedDevice {
  path: string;
  size: number;
  logicalBlockSize: number;
  queues: number;
  depth: number;
  buffers: { mode: BufferMode; exchange: string };
  features: string[];
}

/** What one driver did in the measurement: bytes or operations per second. */
export interface Throughput {
  write: number;
  read: number;
  randomRead: number;
}

export interface JobResult {
  /** `uname -r`. */
  kernel: string;
  /** The processor that the kernel sees. */
  cpu: string;
  /** Where it came from, in words, and its size. */
  image: { origin: string; bytes: number };
  /** The files that were copied in. */
  files: { count: number; bytes: number };
  device: ServedDevice;
  counters: Counters;
  /** What was read back and found equal. */
  verified: { count: number; bytes: number };
  /** What e2fsck said last. */
  check: string;
  ublk: Throughput;
  /** The same over the loop driver. */
  loop: Throughput & { direct: boolean };
}
