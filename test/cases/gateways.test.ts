/* Topology `gateway`: hosts behind gateways that run tiflow for them. */
import { playGroup } from './play.js';

playGroup('gateways', { boundMs: 120_000, alternate: true });
