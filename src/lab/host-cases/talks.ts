/**
 * The connections of the hosts' cases, by what becomes of them.
 */
import type { Talk } from '../twins/stage.js';

/** Both ends have tiflow, and this end's address goes. */
export const FLOW: Talk = { name: 'TI flow', far: 'peer', without: 'dead', with: 'goes on' };

/** The peer has none: the program is told in time. */
export const LEGACY_DIES: Talk = {
  name: 'plain TCP',
  far: 'plain',
  without: 'dead',
  with: 'reset',
};

/** Nothing of what happens is to touch them. */
export const FLOW_STAYS: Talk = {
  name: 'TI flow',
  far: 'peer',
  without: 'goes on',
  with: 'goes on',
};
export const LEGACY_STAYS: Talk = {
  name: 'plain TCP',
  far: 'plain',
  without: 'goes on',
  with: 'goes on',
};
