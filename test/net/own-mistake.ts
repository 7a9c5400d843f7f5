/* Loaded into a daemon before all else (node --import): it makes a mistake when it has just begun to serve. */
import { Vms } from '../../src/daemon/vm/vms.js';

Vms.prototype.resume = () => {
  throw new TypeError('a mistake of ours');
};
