/* The daemon's API for taps as the libvirt hook uses it: answers as agreed, and notes each call. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';

export interface Call {
  /** "a POST /v1/taps/vnet0/export" */
  line: string;
  body: Record<string, unknown>;
}

interface Answer {
  status?: number;
  body: unknown;
}

const GUEST = { version: 1, mac: '52:54:00:12:34:56', inside: ['192.0.2.10/24'] };
const FLOWS = 'ZmxvdyB0YWJsZQ==';
const OUTSIDE = ['192.0.2.10'];
const DONE = { version: 1, done: true };

export class FakeDaemon {
  /** What is asked while a call is answered, by the last word of its path; may answer itself. */
  readonly during: Record<string, (path: string) => Promise<Answer | undefined> | undefined> = {};
  #name: string;
  #calls: Call[];
  #server: Server;
  #taps = new Map<string, string>();

  /** `calls`: in the order of all daemons that share it. */
  constructor(name: string, calls: Call[]) {
    this.#name = name;
    this.#calls = calls;
    this.#server = createServer((request, response) => {
      const { method = '', url = '' } = request;
      let text = '';
      request.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      request.on('end', async () => {
        const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
        this.#calls.push({ line: `${this.#name} ${method} ${url}`, body });
        const given = await this.during[url.split('/').at(-1) ?? '']?.(url);
        const answer = given ?? this.#answer(method, url, body);
        response.writeHead(answer.status ?? 200, { 'content-type': 'application/json' });
        response.end(`${JSON.stringify(answer.body)}\n`);
      });
    });
  }

  async listen(path: string): Promise<void> {
    this.#server.listen(path);
    await once(this.#server, 'listening');
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #answer(method: string, url: string, body: Record<string, unknown>): Answer {
    const [, , , tap = '', verb] = url.split('/');
    if (method === 'GET' && url === '/v1/taps') return { body: this.#tapViews() };
    if (method === 'POST' && url === '/v1/taps') {
      this.#taps.set(String(body.name), String(body.mac));
      return { body: DONE };
    }
    if (!this.#taps.has(tap)) {
      return { status: 404, body: { version: 1, error: { code: 'not-found', message: tap } } };
    }
    if (method === 'DELETE') this.#taps.delete(tap);
    return { body: ANSWERS[verb ?? ''] ?? DONE };
  }

  #tapViews(): unknown {
    const taps = [...this.#taps].map(([name, mac]) => ({ name, mac, place: 'home' }));
    return { version: 1, taps };
  }
}

const ANSWERS: Record<string, unknown> = {
  guest: GUEST,
  place: { version: 1, outside: ['198.51.100.10/24'], gateway: '198.51.100.1' },
  export: { version: 1, guest: GUEST, outside: OUTSIDE, flows: FLOWS },
  import: { version: 1, imported: 3, refused: 0 },
  synchronize: { version: 1, moved: 3, failed: 0, pending: 0, failures: [] },
};

export { FLOWS, GUEST, OUTSIDE };
