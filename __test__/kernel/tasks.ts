import { readdirSync, readFileSync } from 'node:fs';

/** The folders in /proc of all tasks of this machine. */
export function allTasks(): string[] {
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return processes.flatMap(tasksOf);
}

function tasksOf(process: string): string[] {
  const folder = `/proc/${process}/task`;
  try {
    return readdirSync(folder).map((task) => `${folder}/${task}`);
  } catch {
    return []; // The process has ended since it was listed.
  }
}

/** Whether some task sleeps in this function of the kernel. */
export function sleeps(where: string): boolean {
  return allTasks().some((task) => {
    try {
      return readFileSync(`${task}/wchan`, 'utf8') === where;
    } catch {
      return false; // The task has ended since it was listed.
    }
  });
}
