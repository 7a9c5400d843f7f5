/* Times of others on our clock. */
import { now } from '../src/lab/wait.js';

/** CLOCK_REALTIME, which QEMU and tcpdump have, less CLOCK_MONOTONIC, ms. */
export const realtimeOffset = (): number => performance.timeOrigin + performance.now() - now();
