/* Topology `paper`: one end moves, once or often; with whom that works, and who tries to disturb it. */
import { playGroup } from './play.js';

playGroup('moves', { boundMs: 120_000 });
