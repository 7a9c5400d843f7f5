/* Topology `paper`: a laptop behind NATs, and a path that loses packets. */
import { playGroup } from './play.js';

playGroup('roaming', { boundMs: 120_000 });
