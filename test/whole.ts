/**
 * How much of a series a test plays: a sample (`make test`), or the whole of it (`make test-all`).
 * Each kind of fault has its sample.
 */
export const WHOLE = process.env.TIFLOW_TEST_ALL === '1';

/** `all` in `make test-all`; else the items of `all` that `isSample` chooses: one at least. */
export function wholeOrSample<T>(
  all: readonly T[],
  isSample: (item: T, i: number) => boolean,
): T[] {
  const chosen = all.filter((item, i) => WHOLE || isSample(item, i));
  if (chosen.length === 0) throw new Error('a sample of nothing');
  return chosen;
}
