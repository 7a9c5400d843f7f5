/* Topology `vm`: migrations that fail, whatever the family. */
import { playGroup } from './play.js';

playGroup('failures', { boundMs: 600_000 });
