/* Topology `paper`: the path or the other end is away for longer than TCP would wait; a thousand at once. */
import { playGroup } from './play.js';

playGroup('absences', { boundMs: 120_000 });
