/* Topology `paper`: real programs are at work while their server moves, then their client. */
import { playGroup } from './play.js';

playGroup('programs', { boundMs: 120_000 });
