/* The near ends of the channel's streams: unix sockets in a private directory, to which the
 * source's QEMU connects.
 */

import { chmodSync, chownSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import type { Channel } from './channel.js';

export class Forwarder {
  readonly #directory: string;
  readonly #owner: { uid: number; gid: number };
  readonly #channel: Channel;
  readonly #servers: Server[] = [];
  #next = 1;

  /** `owner`: whose QEMU may connect. */
  constructor(directory: string, owner: { uid: number; gid: number }, channel: Channel) {
    this.#directory = directory;
    this.#owner = owner;
    this.#channel = channel;
    chownSync(directory, owner.uid, owner.gid);
  }

  /** Path of a socket whose connections lead to the endpoint of this name over there. */
  async listen(endpoint: 'ram' | 'nbd'): Promise<string> {
    const path = join(this.#directory, `${endpoint}.sock`);
    const server = createServer((socket) => {
      this.#channel.forward(`${endpoint}-${this.#next++}`, socket);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
    chownSync(path, this.#owner.uid, this.#owner.gid);
    this.#servers.push(server);
    return path;
  }

  close(): void {
    for (const server of this.#servers) server.close();
  }
}
