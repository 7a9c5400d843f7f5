/* Topology `twins`: a machine with other software on it, beside its twin without tiflow. */
import { playGroup } from './play.js';

playGroup('hosts', { boundMs: 120_000, alternate: true });
