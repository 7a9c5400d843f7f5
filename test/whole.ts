/**
 * How much of a series a test plays: a sample (`make test`), or the whole of it (`make test-all`).
 * Each kind of fault has its sample.
 */
export const WHOLE = process.env.TIFLOW_TEST_ALL === '1';

const TIMES = 20;

/** How often a property is tried; the seeds are new ones each time. */
export const runs = (sample: number): number => (WHOLE ? TIMES * sample : sample);
