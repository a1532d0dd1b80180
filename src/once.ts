/**
 * A function that runs `act` once: all calls return the same promise. After a failure the next call
 * tries again.
 */
export function once<T>(act: () => Promise<T>): () => Promise<T> {
  let attempt: Promise<T> | undefined;
  const tryIt = async (): Promise<T> => {
    try {
      return await act();
    } catch (error) {
      // `act` may throw synchronously, before `attempt` has the promise.
      await undefined;
      attempt = undefined;
      throw error;
    }
  };
  return () => (attempt ??= tryIt());
}
