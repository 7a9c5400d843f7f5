/* The destination as the source sees it: `ssh HOST tiflow receive`, and a channel over it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Channel, ChannelLost } from './channel.js';

const STDERR_SHOWN = 600;
const END_TIMEOUT_MS = 5_000;

export interface RemoteHost {
  host: string;
  /** Program and arguments that run a command on a host. */
  rsh: string[];
  /** How tiflow is called there. */
  tiflow: string;
}

export interface Remote {
  channel: Channel;
  /** Resolves with the reason when the QEMU there ends; not after `go`. */
  qemuEnded: Promise<string>;
  /** Ends the channel; the command there ends by itself. */
  close(): Promise<void>;
}

/* ssh notices a dead network by itself only when told to. */
const SSH_OPTIONS = ['-T', '-o', 'ServerAliveInterval=5', '-o', 'ServerAliveCountMax=3'];

/** Throws ChannelLost, with what the command wrote to stderr. */
export async function connectRemote(to: RemoteHost): Promise<Remote> {
  const [program = 'ssh', ...options] = to.rsh;
  const extra = program === 'ssh' ? SSH_OPTIONS : [];
  // A session of its own: Ctrl-C is ours to handle, and must not end the channel.
  const child = spawn(program, [...options, ...extra, to.host, `${to.tiflow} receive`], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const words = stderrOf(child);
  let ended: (why: string) => void = () => undefined;
  const qemuEnded = new Promise<string>((resolve) => {
    ended = resolve;
  });
  const notice = (name: string, body: unknown) => {
    if (name === 'qemu-ended') ended((body as { why: string }).why);
  };
  try {
    const channel = await Promise.race([
      Channel.open({ input: child.stdout, output: child.stdin }, { notice }),
      once(child, 'error').then(([error]) => Promise.reject(error)),
    ]);
    return { channel, qemuEnded, close: () => close(channel, child) };
  } catch (cause) {
    await Promise.race([once(child, 'close'), delay(END_TIMEOUT_MS)]);
    child.kill();
    const why = cause instanceof Error ? cause.message : String(cause);
    const said = words().trim();
    throw new ChannelLost(
      `reach tiflow on ${to.host} (${[program, ...options].join(' ')} ${to.host} ${to.tiflow} receive): ${said || why}`,
    );
  }
}

function stderrOf(child: ChildProcess): () => string {
  let text = '';
  child.stderr?.setEncoding('utf8').on('data', (more: string) => {
    text = (text + more).slice(-STDERR_SHOWN);
  });
  return () => text;
}

async function close(channel: Channel, child: ChildProcess): Promise<void> {
  await channel.close();
  if (child.exitCode === null && child.signalCode === null) {
    await Promise.race([once(child, 'exit'), delay(END_TIMEOUT_MS, undefined, { ref: false })]);
  }
  child.kill();
}
