/**
 * Whose a port pair is: connections that must not meet, with real kernels.
 *
 *     aramis ──── router ──┬── athos ─┬── vm
 *     server, first at     │          └── stranger
 *     port 5000            └── porthos
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { DaemonClient } from '../../src/daemon/api/client.js';
import type { FlowView } from '../../src/daemon/view/view.js';
import { Sniffer } from '../../src/lab/sniffer.js';
import type { HostName } from '../../src/lab/topology.js';
import { now, until } from '../../src/lab/wait.js';
import { address } from '../../src/wire/address.js';
import type { Packet } from '../../src/wire/packet.js';
import { seq } from '../../src/wire/seq.js';
import { Field, skip } from '../attack/field.js';

const FIRST = 20_001;
const field = new Field({ settings: { source_ports: `${FIRST}-${FIRST + 7}` } });
const bound = { skip, timeout: 60_000 };

const ECHO = `
const [port] = process.argv.slice(1).map(Number);
require('net').createServer((s) => s.on('error', (e) => console.log(e.code)).pipe(s))
  .listen(port, () => console.log('listening'));`;
/* Says something ten times a second, and prints how often it has heard it. */
const TALK = `
const [host, port, localAddress, localPort] = process.argv.slice(1);
const o = { host, port: +port, localPort: +localPort };
const s = require('net').connect(localAddress === '-' ? o : { ...o, localAddress });
let heard = 0;
s.on('connect', () => { console.log('connected'); setInterval(() => s.write('x'), 100); });
s.on('data', (d) => console.log(heard += d.length));
s.on('error', (e) => { console.log(e.code); process.exit(); });`;

/** A program, and the last that it has said. */
class Program {
  said = '';
  readonly #child: ChildProcess;

  constructor(host: HostName, source: string, argv: readonly (string | number)[]) {
    const command = [process.execPath, '-e', source, ...argv.map(String)];
    this.#child = field.lab.spawn(host, 'talk', command, ['ignore', 'pipe', 'inherit']);
    const { stdout } = this.#child;
    assert.ok(stdout);
    createInterface({ input: stdout }).on('line', (line) => {
      this.said = line;
    });
  }

  says(what: string | RegExp, boundMs?: number): Promise<unknown> {
    const is = () => (typeof what === 'string' ? this.said === what : what.test(this.said));
    return until(`${what}, not ${this.said}`, is, boundMs);
  }

  /** Waits until it has heard something that it says from now on. */
  async goesOn(boundMs?: number): Promise<void> {
    const heard = Number(this.said);
    await until('the talk to go on', () => Number(this.said) > heard + 10, boundMs);
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

async function listen(port: number): Promise<Program> {
  const server = new Program('aramis', ECHO, [port]);
  await server.says('listening');
  return server;
}

async function connect(host: HostName, port: number, localPort: number, from = '-') {
  const client = new Program(host, TALK, [field.lab.address('aramis', 4), port, from, localPort]);
  await client.says(/^\d+$/);
  return client;
}

async function flowOf(host: 'vm' | 'aramis', ends: RegExp): Promise<FlowView | undefined> {
  return (await field.lab.daemon(host).flows()).find((flow) => ends.test(flow.kernel));
}

/** Nothing of this port comes through the router any more, until the table is deleted. */
const cut = (port: number): string =>
  field.lab.run(
    'router',
    ['nft', '-f', '-'],
    `table inet cut {
  chain forward {
    type filter hook forward priority 0
    tcp sport ${port} drop
    tcp dport ${port} drop
  }
}
`,
  );
const heal = (): string => field.lab.run('router', ['nft', 'delete', 'table', 'inet', 'cut']);

test(
  'a flow takes no port of a plain connection, and no program one of a flow',
  bound,
  async () => {
    const { lab } = field;
    const server = await listen(5000);
    const boundary = new DaemonClient(lab.host('vm').run_dir);
    await boundary.detach('eth0');
    const used = [0, 1, 2, 3, 4, 5, 6].map((i) => FIRST + i);
    const plain = await Promise.all(used.map((port) => connect('vm', 5000, port)));
    await boundary.attach('eth0');
    const flow = await connect('vm', 5000, 6000);
    cut(6000);
    const wire = new RegExp(`:${FIRST + 7} > `);
    await until('the flow to be on the port that is left', async () =>
      wire.test((await flowOf('vm', /:6000 > /))?.wire ?? ''),
    );
    await Promise.all([flow, ...plain].map((talk) => talk.goesOn()));

    const since = now();
    const late = new Program('vm', TALK, [lab.address('aramis', 4), 5000, '-', FIRST + 7]);
    await late.says('ECONNREFUSED', 5_000);
    assert.ok(now() - since < 5_000, 'at once, not after two minutes');
    await flow.goesOn();
    heal();
    for (const program of [server, flow, ...plain]) program.end();
  },
);

test('SYNs that cross make a plain connection, with its reason at both ends', bound, async () => {
  const { lab } = field;
  const ends = { vm: lab.vmAddress(4), aramis: lab.address('aramis', 4) };
  cut(5001);
  const programs = [
    new Program('vm', TALK, [ends.aramis, 5001, ends.vm, 5001]),
    new Program('aramis', TALK, [ends.vm, 5001, ends.aramis, 5001]),
  ];
  for (const host of ['vm', 'aramis'] as const)
    await until(`a SYN from ${host}`, () =>
      lab.run(host, ['ss', '-Htn', 'state', 'syn-sent', 'sport', '=', ':5001']).includes(':5001'),
    );
  heal();
  for (const program of programs) await program.says(/^\d+$/);
  const views = await Promise.all(
    (['vm', 'aramis'] as const).map((host) => flowOf(host, /:5001 > /)),
  );
  assert.deepEqual([views[0]?.state, views[1]?.state], ['legacy', 'legacy']);
  assert.ok(views.some((view) => view?.reason === 'simultaneous-open'));
  assert.ok(
    views.every((view) => /^(simultaneous-open|peer-plain|syn-lost)$/.test(view?.reason ?? '')),
  );
  for (const program of programs) program.end();
});

test('the SYN of macOS gets TI_OPEN, and its answer as well', bound, async () => {
  const { lab } = field;
  const server = await listen(5002);
  const seen = await Sniffer.start(lab, 'aramis', 4);
  const syn: Packet = {
    ...{ source: address(lab.vmAddress(4)), sourcePort: 6002 },
    ...{ destination: address(lab.address('aramis', 4)), destinationPort: 5002 },
    ...{ flags: 'S', seq: seq(4711), ack: seq(0), window: 65_535, payload: new Uint8Array(0) },
    options: [
      { kind: 'mss', mss: 1460 },
      { kind: 'nop' },
      { kind: 'wscale', shift: 6 },
      { kind: 'nop' },
      { kind: 'nop' },
      { kind: 'timestamps', value: 1, echo: 0 },
      { kind: 'sack-permitted' },
    ],
  };
  await field.send('vm', syn);
  for (const flags of ['S', 'SA']) {
    const isOurs = (p: Packet) => [p.sourcePort, p.destinationPort].includes(6002);
    const packet = await seen.waitFor(flags, (p) => isOurs(p) && p.flags === flags);
    assert.ok(
      packet.options.some(({ kind }) => kind === 'ti-open'),
      flags,
    );
  }
  seen.stop();
  server.end();
});

test(
  'who comes back with its first address and port is let in, no stranger is',
  bound,
  async () => {
    const { lab } = field;
    const server = await listen(5003);
    const old = lab.vmAddress(4, 'athos');
    const client = await connect('vm', 5003, 6003);
    lab.move('porthos');
    const hasMoved = async () => (await flowOf('aramis', /:6003$/))?.moves === 1;
    await until('the flow to move', hasMoved);
    await client.goesOn();

    const asked = await Sniffer.start(lab, 'stranger', 4);
    lab.run('stranger', ['ip', 'addr', 'add', `${old}/24`, 'dev', 'eth0']);
    for (const host of ['router', 'athos'] as const)
      lab.run(host, ['ip', 'neigh', 'flush', 'to', old]);
    const returned = new Program('stranger', TALK, [lab.address('aramis', 4), 5003, old, 6003]);
    // Only what is asked with an ACK that it does not know makes a kernel say so.
    await asked.waitFor('its answer', (p) => p.sourcePort === 6003 && p.flags === 'R');
    await client.goesOn();
    assert.notEqual(returned.said, 'connected');

    lab.unplug();
    await returned.says(/^\d+$/, 30_000);
    const reset = lab.daemon('aramis').find('flow-reset', 0);
    assert.equal(reset?.reason, 'peer-restarted');
    asked.stop();
    for (const program of [server, client, returned]) program.end();
  },
);
