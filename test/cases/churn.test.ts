/* Topology `paper`: moves that are interrupted by the next one. */
import { playGroup } from './play.js';

playGroup('churn', { boundMs: 180_000, alternate: true });
