// What fio's JSON says. Pure.

export interface FioResult {
  ios: number;
  /** I/Os of the part that only warms up. */
  warmIos: number;
  iops: number;
  /** From before the submission to after the completion. */
  meanLatencyNs: number;
  p99LatencyNs: number;
}

interface Direction {
  total_ios: number;
  iops: number;
  lat_ns: { mean: number; percentile?: Record<string, number> };
}
interface Job {
  jobname: string;
  error: number;
  read: Direction;
  write: Direction;
}

/** Reads the result of a run with two jobs, `warm` and `main`. Throws when fio failed. */
export function parseFio(text: string): FioResult {
  const start = text.indexOf('{'); // fio may say something else first
  if (start < 0) throw new Error(`fio printed no result: ${text.trim() || 'nothing at all'}`);
  const { jobs } = JSON.parse(text.slice(start)) as { jobs: Job[] };
  const main = directionOf(jobs, 'main');
  return {
    ios: main.total_ios,
    warmIos: directionOf(jobs, 'warm').total_ios,
    iops: main.iops,
    meanLatencyNs: main.lat_ns.mean,
    p99LatencyNs: main.lat_ns.percentile?.['99.000000'] ?? Number.NaN,
  };
}

function directionOf(jobs: readonly Job[], name: string): Direction {
  const job = jobs.find(({ jobname }) => jobname === name);
  if (!job) throw new Error(`fio reported no job '${name}'`);
  if (job.error !== 0) throw new Error(`fio's job '${name}' failed with error ${job.error}`);
  const direction = job.read.total_ios > 0 ? job.read : job.write;
  if (direction.total_ios === 0) throw new Error(`fio's job '${name}' did no I/O`);
  return direction;
}
