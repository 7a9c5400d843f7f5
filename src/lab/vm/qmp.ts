/**
 * QEMU's monitor, as far as the lab asks it: one command, one connection. The migration's own
 * client is src/migrate/qmp.ts; the lab does not judge it by itself.
 */
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';
import { LabError } from '../namespace.js';
import { within } from '../wait.js';

interface Reply {
  QMP?: unknown;
  return?: unknown;
  error?: { desc: string };
}

const BOUND_MS = 10_000;

/** Runs one command. QEMU serves one client at a time: while there is another, this waits. */
export function qmp(
  socketPath: string,
  command: string,
  args: Record<string, unknown> = {},
): Promise<unknown> {
  const socket = createConnection(socketPath);
  const answer = new Promise<unknown>((resolve, reject) => {
    const send = (execute: string, from: object): void => {
      socket.write(`${JSON.stringify({ execute, arguments: from })}\n`);
    };
    const todo = [() => send('qmp_capabilities', {}), () => send(command, args)];
    socket.on('error', (cause) => reject(new LabError(`QMP ${command}: ${cause.message}`)));
    socket.on('close', () => reject(new LabError(`QMP ${command}: QEMU hung up`)));
    createInterface({ input: socket })
      .on('error', () => {})
      .on('line', (line) => {
        const reply = JSON.parse(line) as Reply;
        if (reply.error) reject(new LabError(`QMP ${command}: ${reply.error.desc}`));
        if (reply.QMP === undefined && reply.return === undefined) return;
        const next = todo.shift();
        if (next) next();
        else resolve(reply.return);
      });
  });
  return within(`QMP ${command}`, answer, BOUND_MS).finally(() => socket.destroy());
}

/** 'running', 'paused', 'inmigrate', 'postmigrate', ... */
export async function runState(socketPath: string): Promise<string> {
  return ((await qmp(socketPath, 'query-status')) as { status: string }).status;
}
