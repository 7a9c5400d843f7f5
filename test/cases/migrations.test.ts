/* Topology `vm`: real guests, migrated between two hypervisors. */
import { playGroup } from './play.js';

playGroup('migrations', { boundMs: 600_000 });
