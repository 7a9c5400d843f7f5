/*
 * Changes of a flow: struct command, run through the data plane's own program, so that the
 * death of the daemon cannot leave half of a change.
 */

import { ERRNO } from '../libc/errno.js';
import type { Tuple } from '../wire/tuple.js';
import {
  COMMAND_AT,
  COMMAND_SIZE,
  type Flow,
  type Mapping,
  readFlow,
  VERB,
  writeMapping,
  writeTuple,
} from './abi.gen.js';
import { clearLog, libbpfError, testRun } from './libbpf.js';

/** One change of one flow. */
export type Command =
  | { verb: 'hold' | 'release' | 'forget' | 'close' | 'go-on' | 'let-go'; kernel: Tuple }
  | { verb: 'freeze'; kernel: Tuple; until: bigint }
  | {
      verb: 'map';
      kernel: Tuple;
      mapping: Mapping;
      epoch: number;
      unproven: boolean;
      held: boolean;
    };

/** `flow`: as it was before the change; not there without a flow. */
export interface CommandResult {
  result: 'ok' | 'no-flow' | 'stale-epoch' | 'full' | 'foreign-wire';
  flow?: Flow;
}

const VERBS = {
  hold: VERB.HOLD,
  release: VERB.RELEASE,
  map: VERB.MAP,
  forget: VERB.FORGET,
  freeze: VERB.FREEZE,
  close: VERB.CLOSE,
  'go-on': VERB.GO_ON,
  'let-go': VERB.LET_GO,
};

const RESULTS = new Map<number, CommandResult['result']>([
  [0, 'ok'],
  [-ERRNO.ENOENT, 'no-flow'],
  [-ERRNO.ESTALE, 'stale-epoch'],
  [-ERRNO.ENOSPC, 'full'],
  [-ERRNO.EINVAL, 'foreign-wire'],
]);

/** Runs a command.  Throws SystemError only if it could not be run at all. */
export function runCommand(programFd: number, c: Command): CommandResult {
  const context = new Uint8Array(COMMAND_SIZE);
  const view = new DataView(context.buffer);
  view.setUint32(COMMAND_AT.verb, VERBS[c.verb], true);
  writeTuple(view, c.kernel, COMMAND_AT.kernel);
  if (c.verb === 'freeze') view.setBigUint64(COMMAND_AT.until, c.until, true);
  if (c.verb === 'map') {
    writeMapping(view, c.mapping, COMMAND_AT.mapping);
    view.setUint16(COMMAND_AT.epoch, c.epoch, true);
    view.setUint8(COMMAND_AT.unproven, c.unproven ? 1 : 0);
    view.setUint8(COMMAND_AT.held, c.held ? 1 : 0);
  }
  clearLog();
  // The kernel copies the context of a syscall program back in place; it takes no ctx_out.
  const run = testRun(programFd, { context });
  if (run.error !== 0) throw libbpfError(`run command ${c.verb}`, run.error);
  const number = view.getInt32(COMMAND_AT.result, true);
  const result = RESULTS.get(number);
  if (result === undefined) throw libbpfError(`run command ${c.verb}`, number);
  return result === 'no-flow' ? { result } : { result, flow: readFlow(view, COMMAND_AT.flow) };
}
