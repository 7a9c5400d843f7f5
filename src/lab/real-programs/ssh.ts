/**
 * OpenSSH, all of it at once: an interactive session with a terminal, a forwarded port with a
 * continuity stream through it, and sftp in both directions.
 */
import * as services from '../services.js';
import { Session } from '../session.js';
import { Transfer } from '../stream.js';
import { now } from '../wait.js';
import { type Act, programCase } from './act.js';
import { compareFiles, writePatternFile } from './files.js';
import type { Program } from './program.js';

const FORWARDED = 7000;
const BYTES = 16_000_000;
const KBIT_PER_S = 32_000;
const STREAM_BYTES_PER_S = 1_000_000;

export const ssh = programCase(
  { name: 'ssh', summary: 'a session, a forwarded port and sftp', port: 22 },
  async (act) => {
    const { lab, family } = act.stage;
    // The VM has one from the start.
    if (act.server === 'aramis') await act.serve('sshd', services.sshd(lab.directory, 'aramis'));
    const session = await Session.open({ logIn: (_, command) => logIn(act, command) }, family);
    const tunnel = await forward(act);
    const loopback = family === 6 ? '::1' : '127.0.0.1';
    const ends = { client: act.client, server: act.server, address: loopback };
    const stream = await Transfer.open(lab, { ...ends, family, port: FORWARDED });
    stream.write(STREAM_BYTES_PER_S);
    const files = copies(act);
    await act.move(4);
    await session.counting(now());
    await session.type();
    const environment = (await session.environment()).join(' ');
    act.check('the session has a terminal', /SSH_TTY=\/dev\//.test(environment), environment);
    const ended = await session.finish();
    act.check('session complete and in order', ended.ok, ended.detail);
    act.silence(session);
    const whole = await stream.finish();
    act.check('every byte through the forwarded port', whole.ok, whole.detail);
    act.silence(stream);
    const forwarder = tunnel.stop();
    act.check('the forwarding ssh met no error', forwarder.ok, forwarder.detail);
    for (const { name, program, from, to } of files) {
      await act.finish(name, program);
      act.check(`${name}: the file is whole`, ...compareFiles(from, to));
    }
  },
);

/** Like services.ssh, but with a terminal that neither echoes nor changes line ends. */
function logIn(act: Act, command: string): ReturnType<typeof act.stage.lab.spawn> {
  const raw = `stty -echo -onlcr; ${command}`;
  const argv = services.ssh(act.stage.lab.directory, act.address, raw);
  const withTerminal = argv.map((word) => (word === '-T' ? '-tt' : word));
  return act.stage.lab.spawn(act.client, 'ssh', withTerminal, ['pipe', 'pipe', 'pipe']);
}

async function forward(act: Act): Promise<Program> {
  const loopback = act.stage.family === 6 ? '[::1]' : '127.0.0.1';
  const rule = ['-L', `${loopback}:${FORWARDED}:${loopback}:${FORWARDED}`];
  const argv = services.ssh(act.stage.lab.directory, act.address, 'echo forwards; exec cat');
  const [program = '', ...rest] = argv;
  const tunnel = act.start('client', 'ssh', [
    program,
    ...rule,
    '-o',
    'ExitOnForwardFailure=yes',
    ...rest,
  ]);
  await tunnel.line('forwards');
  return tunnel;
}

interface Copy {
  name: string;
  program: Program;
  from: string;
  to: string;
}

function copies(act: Act): Copy[] {
  const near = act.directory('client', 'sftp');
  const far = act.directory('server', 'sftp');
  writePatternFile(`${near}/put`, BYTES);
  writePatternFile(`${far}/get`, BYTES, 1);
  const sftp = (name: string, order: string): Program => {
    const program = act.start('client', name, sftpTo(act));
    program.end(`${order}\n`);
    return program;
  };
  return [
    {
      name: 'sftp put',
      program: sftp('sftp', `put ${near}/put ${far}/put`),
      ...{ from: `${near}/put`, to: `${far}/put` },
    },
    {
      name: 'sftp get',
      program: sftp('sftp', `get ${far}/get ${near}/get`),
      ...{ from: `${far}/get`, to: `${near}/get` },
    },
  ];
}

function sftpTo(act: Act): string[] {
  const argv = services.ssh(act.stage.lab.directory, 'ADDRESS', '');
  // What ssh and sftp have in common: the configuration file and the options.
  const options = argv.slice(argv.indexOf('-F'), argv.indexOf('root@ADDRESS'));
  const limit = ['-l', String(KBIT_PER_S)];
  return ['sftp', ...limit, '-b', '-', ...options, `root@${act.urlHost}`];
}
