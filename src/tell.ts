import type { EventEmitter } from 'node:events';

/**
 * Calls the listeners of an event; returns false without listeners. An exception of a listener becomes an
 * uncaught exception of the program, and interrupts neither the caller nor other listeners.
 */
export function tell<
  Events extends Record<keyof Events, unknown[]>,
  Name extends keyof Events & string,
>(emitter: EventEmitter<Events>, name: Name, ...args: Events[Name]): boolean {
  const listeners = (emitter as EventEmitter).rawListeners(name);
  for (const listener of listeners) {
    try {
      Reflect.apply(listener, emitter, args);
    } catch (thrown) {
      process.nextTick(() => {
        throw thrown;
      });
    }
  }
  return listeners.length > 0;
}
