// The list of steps, on stderr: alive on a terminal, plain lines elsewhere.

import { Listr, ListrLogger, type ListrTask, ProcessOutput } from 'listr2';

/** A step under way. */
export interface Ongoing {
  /** Shows what it does right now: only where lines can be overwritten. */
  progress(text: string): void;
  /** Shows something worth keeping. */
  say(text: string): void;
}

export interface StepTask {
  title: string;
  /** What came of it, shown beside the title. */
  run(ongoing: Ongoing): Promise<string | void>;
}

/** Runs the steps one after another; rejects with what the first that fails rejected with. */
export async function runSteps(steps: readonly StepTask[]): Promise<void> {
  let failure: unknown;
  const tasks = steps.map(({ title, run }): ListrTask => ({
    title,
    async task(_, task) {
      const say = (text: string) => void (task.output = text);
      const progress = process.stderr.isTTY ? say : () => {};
      const begun = Date.now();
      try {
        const came = await run({ progress, say });
        const seconds = Math.round((Date.now() - begun) / 1000);
        task.title = `${title}${came ? `: ${came}` : ''} (${seconds} s)`;
      } catch (error) {
        failure = error;
        throw new Error('', { cause: error }); // the caller tells of it, once
      }
    },
  }));
  const output = new ProcessOutput(process.stderr, process.stderr);
  const list = new Listr(tasks, {
    renderer: 'default',
    rendererOptions: {
      logger: new ListrLogger({ useIcons: true, processOutput: output }),
      showErrorMessage: false,
      collapseErrors: false,
    },
    fallbackRenderer: 'simple',
    fallbackRendererOptions: { logger: new ListrLogger({ useIcons: true, processOutput: output }) },
    fallbackRendererCondition: () => !process.stderr.isTTY,
    registerSignalListeners: false,
  });
  await list.run().catch((error: unknown) => {
    throw failure ?? error;
  });
}
