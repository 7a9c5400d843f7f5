/**
 * PostgreSQL: a long transaction, COPY in both directions, and a session that listens, idle, and
 * is notified only after the move.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, readdirSync } from 'node:fs';
import { runCommand } from '../namespace.js';
import { until } from '../wait.js';
import { type Act, isSequence, programCase } from './act.js';
import type { Program } from './program.js';

const TICK_MS = 20;
const ROWS_PER_TICK = 200;
const ROWS_OUT = 50_000;
const TABLES = `
  CREATE TABLE ledger (n int);
  CREATE TABLE copied (place serial, n int, hash text);
`;
/* Takes 20 ms for each 250 rows, or it would be over before the move. */
const COPY_OUT = `COPY (SELECT n, md5(n::text) FROM generate_series(1, ${ROWS_OUT}) n
  WHERE n % 250 > 0 OR pg_sleep(0.02) IS NOT NULL) TO STDOUT`;
const IDENTITY = 'SELECT pg_backend_pid(), txid_current();';

export const postgresql = programCase(
  { name: 'postgresql', summary: 'a transaction, COPY in and out, LISTEN', port: 5432 },
  async (act) => {
    const directory = await serve(act);
    const admin = (sql: string): Program => psql(act, 'server', directory, '-c', sql);
    await act.finish('CREATE TABLE', admin(TABLES));
    const listener = session(act);
    listener.write("LISTEN news;\nSELECT 'listens';\n");
    await listener.line('listens');
    const transaction = session(act);
    transaction.write(`BEGIN;\n${IDENTITY}\n`);
    const stopInserting = transaction.pace(TICK_MS, insert);
    const copyIn = session(act, '-c', 'COPY copied (n, hash) FROM STDIN');
    const stopCopying = copyIn.pace(TICK_MS, rows);
    const copyOut = session(act, '-c', COPY_OUT);
    await copyOut.line('1000\t');
    await act.move(4);
    await checkTransaction(act, transaction, stopInserting(), admin);
    await checkCopyIn(act, copyIn, stopCopying() * ROWS_PER_TICK, admin);
    await checkCopyOut(act, copyOut);
    await checkListener(act, listener, admin);
  },
);

type Admin = (sql: string) => Program;

/** Debian installs no program of the server into the path. */
const program = (name: string): string => {
  const versions = readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a));
  return `/usr/lib/postgresql/${versions[0]}/bin/${name}`;
};

/* It refuses to be root. */
const AS_POSTGRES = ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups', '--'];

function makeCluster(directory: string): void {
  runCommand(['chown', 'postgres:', directory]);
  const settings = { '-D': `${directory}/data`, '-A': 'trust', '-E': 'UTF8' };
  const initdb = [program('initdb'), ...Object.entries(settings).flat(), '--locale=C', '-N'];
  runCommand(['env', '-C', directory, ...AS_POSTGRES, ...initdb]);
  appendFileSync(`${directory}/data/pg_hba.conf`, 'host all all all trust\n');
}

/** Starts the server; returns the directory of its socket. */
async function serve(act: Act): Promise<string> {
  const directory = act.prepared('postgresql', makeCluster);
  const parameters = {
    port: act.port,
    listen_addresses: '*',
    unix_socket_directories: directory,
    fsync: 'off',
    // Else what a SIGKILL leaves of it is in /dev/shm.
    dynamic_shared_memory_type: 'mmap',
  };
  const flags = Object.entries(parameters).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  // With System V objects of its own: they, too, would outlive a SIGKILL.
  const start = ['unshare', '--ipc', '--', 'env', '-C', directory, ...AS_POSTGRES];
  const data = ['-D', `${directory}/data`];
  await act.serve('postgres', [...start, program('postgres'), ...data, ...flags]);
  // It listens before it has started up, and refuses until then.
  const asks = `${program('pg_isready')} -h ${directory} -p ${act.port} || true`;
  await until('postgres to take connections', () =>
    act.stage.lab.run(act.server, ['sh', '-c', asks]).includes('accepting'),
  );
  return directory;
}

const psql = (act: Act, end: 'server' | 'client', host: string, ...rest: string[]): Program =>
  act.start(end, 'psql', [
    ...[
      'psql',
      '-X',
      '-q',
      '-A',
      '-t',
      '-v',
      'ON_ERROR_STOP=1',
      '-U',
      'postgres',
      '-d',
      'postgres',
    ],
    ...['-h', host, '-p', String(act.port), ...rest],
  ]);

const session = (act: Act, ...rest: string[]): Program => psql(act, 'client', act.address, ...rest);

const insert = (n: number): string => `INSERT INTO ledger VALUES (${n}) RETURNING n;\n`;

const md5 = (n: number): string => createHash('md5').update(String(n)).digest('hex');

function rows(tick: number): string {
  const first = (tick - 1) * ROWS_PER_TICK + 1;
  const numbers = Array.from({ length: ROWS_PER_TICK }, (_, i) => first + i);
  return numbers.map((n) => `${n}\t${md5(n)}\n`).join('');
}

async function checkTransaction(
  act: Act,
  transaction: Program,
  inserted: number,
  admin: Admin,
): Promise<void> {
  transaction.end(`${IDENTITY}\nCOMMIT;\n`);
  await act.finish('transaction', transaction);
  act.silence(transaction);
  const [before = '', ...rest] = transaction.texts;
  const after = rest.pop() ?? '';
  const answers = `${rest.length} of ${inserted}`;
  act.check('every INSERT is answered once, in order', isSequence(rest, inserted), answers);
  act.check('the same session and transaction throughout', before === after, before);
  const ledger = admin('SELECT n FROM ledger ORDER BY ctid');
  await act.finish('SELECT', ledger);
  const whole = isSequence(ledger.texts, inserted);
  act.check('it is committed as a whole', whole, `${ledger.lines.length} of ${inserted} rows`);
}

async function checkCopyIn(act: Act, copy: Program, written: number, admin: Admin): Promise<void> {
  copy.end();
  await act.finish('COPY FROM', copy);
  const copied = admin('SELECT n, hash FROM copied ORDER BY place');
  await act.finish('SELECT', copied);
  const whole = isSequence(copied.texts, written, (n) => `${n}|${md5(n)}`);
  act.check('COPY FROM: every row once, in order', whole, `${copied.lines.length} of ${written}`);
}

async function checkCopyOut(act: Act, copy: Program): Promise<void> {
  await act.finish('COPY TO', copy);
  const whole = isSequence(copy.texts, ROWS_OUT, (n) => `${n}\t${md5(n)}`);
  act.check('COPY TO: every row once, in order', whole, `${copy.lines.length} of ${ROWS_OUT}`);
}

async function checkListener(act: Act, listener: Program, admin: Admin): Promise<void> {
  for (const n of [1, 2, 3]) await act.finish('NOTIFY', admin(`NOTIFY news, '${n}'`));
  // psql shows what has come when it is given something to do.
  listener.end("SELECT 'awake';\n");
  await act.finish('listener', listener);
  const told = listener.texts.flatMap((text) => /payload "(\d)"/.exec(text)?.[1] ?? []);
  act.check('every notification once, in order', told.join() === '1,2,3', told.join());
}
