/**
 * `tiflow probe` on real kernels, with everything on the way that may be there:
 *
 *     aramis ──── router (nftables) ──┬── athos ──── vm
 *                                     └── porthos
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { Lab, type Protected } from '../../src/lab/lab.js';
import { insideNamespace } from '../../src/lab/namespace.js';
import { tiflow } from '../../src/lab/services.js';
import { StreamProgram } from '../../src/lab/stream.js';
import type { Family } from '../../src/lab/topology.js';
import { until } from '../../src/lab/wait.js';
import { leftovers } from './leak.js';

const FAMILIES = [4, 6] as const;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces';
const SYN = 'tcp flags & (syn | ack) == syn';
const SYN_ACK = 'tcp flags & (syn | ack) == (syn | ack)';
const OPTION = 'tcp option 253 exists';

interface Found {
  exit: number | null;
  movable: boolean | null;
  reason: string | null;
  option_there: string;
  option_back: string;
  peer: string;
  interface_protected: boolean;
  hops: Array<{ address: string | null; option: string }> | null;
}

/** A lab for the tests of one `describe`; torn down and looked over for what it left. */
function labOf(suffix: string, daemons: readonly Protected[]): () => Lab {
  const name = `pr${process.pid}${suffix}`;
  let lab: Lab | undefined;
  before(async () => {
    lab = await Lab.build({ name, owned: true, daemons });
  });
  after(() => {
    lab?.teardown();
    assert.deepEqual(leftovers(name), []);
  });
  return () => {
    assert.ok(lab);
    return lab;
  };
}

async function run(lab: Lab, from: 'aramis' | 'vm', ...argv: string[]): Promise<[number, string]> {
  const command = tiflow('probe', ...argv, '--run-dir', lab.host(from).run_dir);
  const [program = '', ...rest] = insideNamespace(lab.namespaces[from], command);
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  const [exit] = await once(child, 'close');
  return [exit, said];
}

async function probe(
  lab: Lab,
  o: { from?: 'aramis' | 'vm'; family: Family; port?: number; trace?: boolean },
): Promise<Found> {
  const from = o.from ?? 'aramis';
  const address = lab.address(from === 'vm' ? 'aramis' : 'vm', o.family);
  const host = o.family === 6 ? `[${address}]` : address;
  const trace = o.trace ? ['--trace'] : [];
  const [exit, said] = await run(lab, from, `${host}:${o.port ?? 22}`, '--json', ...trace);
  try {
    return { ...(JSON.parse(said) as Found), exit };
  } catch {
    return assert.fail(said);
  }
}

/** What is on the way while `body` runs. */
async function onTheWay(lab: Lab, rules: string[], body: () => Promise<void>): Promise<void> {
  const chain = 'type filter hook forward priority mangle';
  const lines = ['add table inet way', `add chain inet way forward { ${chain}; }`];
  for (const rule of rules) lines.push(`add rule inet way forward ${rule}`);
  lab.run('router', ['nft', '-f', '-'], `${lines.join('\n')}\n`);
  try {
    await body();
  } finally {
    lab.run('router', ['nft', 'delete', 'table', 'inet', 'way']);
  }
}

/** Nothing is half open at the far end. */
async function noneHalfOpen(lab: Lab, host: 'aramis' | 'vm'): Promise<void> {
  const connections = () => lab.run(host, ['ss', '-Htan', 'exclude', 'listening']);
  await until(`${host} to have no connection`, () => connections() === '', 1_000);
}

const verdict = ({ movable, reason, option_there, option_back, peer }: Found) => [
  movable,
  reason,
  `there ${option_there}`,
  `back ${option_back}`,
  peer,
];

describe('tiflow probe, tiflow at both ends', { skip, timeout: 120_000 }, () => {
  const lab = labOf('b', ['aramis', 'vm']);

  for (const family of FAMILIES) {
    test(`IPv${family}: it can move; hop by hop; nothing is left at either end`, async () => {
      const [near, far] = [lab().daemon('aramis'), lab().daemon('vm')];
      const counters = async () => [(await near.status()).counters, (await far.status()).counters];
      const was = await counters();
      const found = await probe(lab(), { family, trace: true });
      assert.deepEqual(verdict(found), [true, null, 'there passes', 'back passes', 'tiflow']);
      assert.equal(found.exit, 0);
      assert.equal(found.interface_protected, true);
      const hops = found.hops?.map((hop) => hop.option);
      assert.deepEqual(hops, ['there', 'there', 'end']);
      await noneHalfOpen(lab(), 'vm');
      const flows = [...(await near.flows()), ...(await far.flows())];
      assert.deepEqual(
        flows.filter((flow) => flow.state !== 'ended'),
        [],
      );
      const is = await counters();
      const grown = (end: 0 | 1, name: string) => (is[end]?.[name] ?? 0) - (was[end]?.[name] ?? 0);
      // Our own boundary added nothing to the SYN without the option, and made no flow of those
      // with it. There, the first one and the last hop's were reset before they were open.
      assert.equal(grown(0, 'legacy.no-room'), 1);
      assert.equal(grown(0, 'count.flow-opened'), 0);
      assert.equal(grown(1, 'legacy.peer-plain'), 1);
      assert.equal(grown(1, 'count.flow-opened'), 0);
    });
  }

  const MIDDLEBOXES: Array<{ what: string; rules: string[]; found: unknown[]; trace?: string[] }> =
    [
      {
        what: 'the option is removed from SYNs',
        rules: [`${SYN} reset tcp option 253`],
        found: [false, 'peer-plain', 'there fails', 'back unknown', 'unknown'],
        trace: ['there', 'gone', 'end'],
      },
      {
        what: 'the option is removed from SYN/ACKs',
        rules: [`${SYN_ACK} reset tcp option 253`],
        found: [false, 'no-option-back', 'there passes', 'back unknown', 'tiflow'],
      },
      {
        what: 'SYNs with the option are dropped',
        rules: [`${SYN} ${OPTION} drop`],
        found: [false, 'syn-lost', 'there fails', 'back unknown', 'unknown'],
      },
      {
        what: 'SYN/ACKs with the option are dropped',
        rules: [`${SYN_ACK} ${OPTION} drop`],
        found: [false, 'syn-ack-lost', 'there passes', 'back fails', 'tiflow'],
      },
      {
        what: 'SYNs with the option are refused',
        rules: [`${SYN} ${OPTION} reject with tcp reset`],
        found: [false, 'syn-refused', 'there fails', 'back unknown', 'unknown'],
      },
      {
        what: 'the port is filtered',
        rules: ['tcp dport 22 drop'],
        found: [null, 'no-answer', 'there unknown', 'back unknown', 'unknown'],
      },
      {
        what: 'the port is filtered, and that is told',
        rules: ['tcp dport 22 reject with icmpx admin-prohibited'],
        found: [null, 'unreachable', 'there unknown', 'back unknown', 'unknown'],
      },
    ];
  for (const { what, rules, found, trace } of MIDDLEBOXES) {
    for (const family of FAMILIES) {
      test(`IPv${family}: ${what}`, async () => {
        await onTheWay(lab(), rules, async () => {
          const answer = await probe(lab(), { family, trace: trace !== undefined });
          assert.deepEqual(verdict(answer), found);
          assert.equal(answer.exit, 1);
          if (trace)
            assert.deepEqual(
              answer.hops?.map((hop) => hop.option),
              trace,
            );
          await noneHalfOpen(lab(), 'vm');
        });
      });
    }
  }

  for (const family of FAMILIES) {
    test(`IPv${family}: a port on which nothing listens`, async () => {
      const found = await probe(lab(), { family, port: 81 });
      assert.deepEqual(verdict(found).slice(0, 2), [null, 'closed']);
      assert.equal(found.exit, 1);
    });

    test(`IPv${family}: behind a NAT`, async () => {
      const table = family === 4 ? 'ip nat' : 'ip6 nat';
      const hook = 'type nat hook postrouting priority srcnat';
      const nft = (...words: string[]) => lab().run('router', ['nft', words.join(' ')]);
      nft('add table', table);
      try {
        nft('add chain', table, `post { ${hook}; }`);
        nft('add rule', table, 'post oifname athos0 masquerade');
        const found = await probe(lab(), { family, trace: true });
        assert.deepEqual(verdict(found), [true, null, 'there passes', 'back passes', 'tiflow']);
        assert.deepEqual(
          found.hops?.map((hop) => hop.option),
          ['there', 'there', 'end'],
        );
        await noneHalfOpen(lab(), 'vm');
      } finally {
        nft('delete table', table);
      }
    });
  }

  test('interrupted while it waits, it leaves nothing half open', async () => {
    await onTheWay(lab(), [`${SYN_ACK} drop`], async () => {
      const argv = tiflow('probe', lab().address('vm', 4));
      const [program = '', ...rest] = insideNamespace(lab().namespaces.aramis, argv);
      const child = spawn(program, rest, { stdio: 'ignore' });
      const halfOpen = () => lab().run('vm', ['ss', '-Htan', 'state', 'syn-recv']) !== '';
      await until('the SYNs to arrive', halfOpen, 10_000);
      child.kill('SIGINT');
      assert.deepEqual(await once(child, 'exit'), [130, null]);
      await noneHalfOpen(lab(), 'vm');
    });
  });

  test('mistakes are one line each', async () => {
    const said = async (...argv: string[]) => run(lab(), 'aramis', ...argv);
    assert.deepEqual(await said('203.0.113.10'), [
      1,
      'tiflow: probe 203.0.113.10: 203.0.113.10 is this machine: there is no path\n',
    ]);
    const [exit, text] = await said('no-such-host.invalid');
    assert.equal(exit, 1);
    assert.match(
      text,
      /^tiflow: probe no-such-host\.invalid: no address: (EAI_AGAIN|ENOTFOUND)\n$/,
    );
    assert.equal((await said('2001:db8:1::1', '-4'))[0], 1);
    lab().run('aramis', ['ip', 'route', 'add', 'unreachable', '198.18.0.0/15']);
    assert.deepEqual(await said('198.18.0.1'), [
      1,
      'tiflow: probe 198.18.0.1: no route to 198.18.0.1\n',
    ]);
  });
});

describe('tiflow probe, tiflow at one end', { skip, timeout: 60_000 }, () => {
  const lab = labOf('o', ['vm']);

  for (const family of FAMILIES) {
    test(`IPv${family}: none here: the host and the path are judged all the same`, async () => {
      const found = await probe(lab(), { family });
      assert.deepEqual(verdict(found), [true, null, 'there passes', 'back passes', 'tiflow']);
      assert.equal(found.interface_protected, false);
      await noneHalfOpen(lab(), 'vm');
    });

    test(`IPv${family}: none there`, async () => {
      const port = 5000 + family;
      const argv = ['listen', lab().address('aramis', family), String(port), '1', '30'];
      const server = new StreamProgram(lab(), 'aramis', argv);
      await server.ready('listening');
      const found = await probe(lab(), { from: 'vm', family, port, trace: true });
      assert.deepEqual(verdict(found), [
        ...[false, 'peer-plain', 'there unknown', 'back unknown', 'unknown'],
      ]);
      assert.deepEqual(
        found.hops?.map((hop) => hop.option),
        ['there', 'there', 'end'],
      );
      await noneHalfOpen(lab(), 'aramis');
      server.stop();
    });
  }
});
