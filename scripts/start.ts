// `npm start`: installs what is needed, builds, and runs the main job under a kernel with ublk.

import { resolve } from 'node:path';
import { CommanderError } from 'commander';
import { SignalError, abortOnSignals, kernelHasUblk } from '../vm/index.ts';
import { JobFollower } from './start/follow.ts';
import { type Inputs, findInputs } from './start/inputs.ts';
import { launch } from './start/launch.ts';
import { type StartOptions, parseOptions } from './start/options.ts';
import { choosePlace, mayUseThisSystem } from './start/place.ts';
import { build, installPackages, telling } from './start/prepare.ts';
import { type Ongoing, type StepTask, runSteps } from './start/progress.ts';
import { type JobResult, STEPS, type Step } from './start/protocol.ts';
import { formatReport } from './start/report.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const EXIT_STATUS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as Record<string, number>;

async function main(options: StartOptions, signal: AbortSignal): Promise<void> {
  const begun = Date.now();
  const native = await decide(options, signal);
  // The files are measured after the build, which adds to them.
  await runSteps(preparation(native, signal));
  const inputs = await findInputs(options, CHECKOUT);
  const result = await carryOut(native, { options, inputs, signal });
  const seconds = Math.round((Date.now() - begun) / 1000);
  const outcome = { ...result, native, seconds };
  const text = options.json ? `${JSON.stringify(outcome)}\n` : await formatReport(outcome);
  process.stdout.write(text);
}

async function decide(options: StartOptions, signal: AbortSignal): Promise<boolean> {
  await findInputs(options, CHECKOUT); // tells of what cannot be used before minutes are spent
  const place = choosePlace(options, {
    ublk: await kernelHasUblk(),
    root: process.getuid?.() === 0,
    terminal: process.stdin.isTTY && process.stderr.isTTY,
  });
  if (!place.native) console.error(`Using a virtual machine, ${place.why}.`);
  return place.native && (!place.ask || (await mayUseThisSystem(signal)));
}

function preparation(native: boolean, signal: AbortSignal): StepTask[] {
  const given = { checkout: CHECKOUT, signal };
  return [
    {
      title: 'See that the programs it needs are installed',
      run: ({ say }) => installPackages({ vm: !native }, { ...given, say }),
    },
    {
      title: 'Build the native addon and the library (the first time takes minutes)',
      run: ({ progress }) => build({ ...given, say: progress }),
    },
  ];
}

async function carryOut(
  native: boolean,
  given: { options: StartOptions; inputs: Inputs; signal: AbortSignal },
): Promise<JobResult> {
  const follower = new JobFollower();
  let ended: Promise<void> | undefined;
  const begin = async ({ say }: Ongoing) => {
    await telling(say, () => {
      ended = launch(native, { ...given, follower, checkout: CHECKOUT });
      return Promise.race([follower.hello, ended]);
    });
    await follower.hello;
  };
  const follow = (step: Step) => ({
    title: STEPS[step],
    run: ({ progress }: Ongoing) => follower.step(step, progress),
  });
  const title = native ? 'Start the job' : 'Boot a virtual machine with a kernel that has ublk';
  try {
    await runSteps([{ title, run: begin }, ...(Object.keys(STEPS) as Step[]).map(follow)]);
    return await follower.result;
  } finally {
    await ended;
  }
}

using interrupt = abortOnSignals();
try {
  await main(parseOptions(process.argv.slice(2)), interrupt.signal);
} catch (error) {
  process.exitCode = tell(error);
}

/** Says what went wrong, and returns the exit status. */
function tell(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof SignalError) {
    console.error(`Interrupted by ${error.signal}; nothing is left behind.`);
    return EXIT_STATUS[error.signal] ?? 1;
  }
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
}
