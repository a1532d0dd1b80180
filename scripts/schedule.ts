// The order of the stages of `npm test` on a machine with two processors.

/** A piece of work that keeps one processor busy, most of the time. */
export interface Scheduled {
  name: string;
  /** The stages that must have ended before, where they run too. */
  after?: readonly string[];
  /** How many runs of the stage are independent of each other; 1 by default. */
  parts?: number;
}

/**
 * Runs all parts of all stages, at most `places` at a time. A free place takes the first part, in the
 * order of the stages, whose stage waits for no other stage. `run` must not reject.
 *
 * A stage that waits for a stage that waits for the first one never runs: the call rejects.
 */
export async function runAll<S extends Scheduled>(
  stages: readonly S[],
  places: number,
  run: (stage: S, part: number) => Promise<void>,
): Promise<void> {
  const waiting = stages.flatMap((stage) =>
    Array.from({ length: stage.parts ?? 1 }, (_, part) => ({ stage, part })),
  );
  const left = new Map(stages.map(({ name, parts = 1 }) => [name, parts]));
  const running = new Set<Promise<void>>();
  const isReady = ({ after = [] }: S): boolean => after.every((name) => !left.get(name));

  while (waiting.length > 0 || running.size > 0) {
    const next = running.size < places ? waiting.findIndex(({ stage }) => isReady(stage)) : -1;
    if (next >= 0) {
      const [{ stage, part }] = waiting.splice(next, 1) as [(typeof waiting)[number]];
      const ended = run(stage, part).then(() => {
        left.set(stage.name, left.get(stage.name)! - 1);
        running.delete(ended);
      });
      running.add(ended);
    } else if (running.size > 0) {
      await Promise.race(running);
    } else {
      const names = waiting.map(({ stage }) => stage.name).join(', ');
      throw new Error(`these stages wait for each other: ${names}`);
    }
  }
}
