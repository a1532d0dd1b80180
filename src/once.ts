/**
 * An action that is done once, however often it is asked for: all get the same promise. An attempt
 * that fails is forgotten, so that the next call tries again.
 */
export function once<T>(act: () => Promise<T>): () => Promise<T> {
  let attempt: Promise<T> | undefined;
  const tryIt = async (): Promise<T> => {
    try {
      return await act();
    } catch (error) {
      // `act` may throw at once, before its promise is kept.
      await undefined;
      attempt = undefined;
      throw error;
    }
  };
  return () => (attempt ??= tryIt());
}
