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

/** Whether some task sleeps in one of these functions of the kernel. */
export function sleeps(...functions: string[]): boolean {
  return allTasks().some((task) => {
    try {
      return functions.includes(readFileSync(`${task}/wchan`, 'utf8'));
    } catch {
      return false; // The task has ended since it was listed.
    }
  });
}
