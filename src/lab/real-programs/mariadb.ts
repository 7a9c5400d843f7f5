/**
 * MariaDB: a transaction; a long result that is read row by row; and an idle session whose state,
 * a temporary table and a lock, exists only as long as its connection does.
 */
import { writeFileSync } from 'node:fs';
import { runCommand } from '../namespace.js';
import { type Act, isSequence, programCase } from './act.js';
import type { Program } from './program.js';

const TICK_MS = 20;
const ROWS = 50_000;
const INIT = `CREATE DATABASE lab;
CREATE USER lab@'%';
GRANT ALL ON *.* TO lab@'%';
CREATE TABLE lab.ledger (place SERIAL, n INT) ENGINE=InnoDB;
`;
/* Takes 20 ms for each 250 rows. */
const LONG_RESULT = `SELECT seq, MD5(seq), IF(seq % 250 = 0, SLEEP(0.02), 0)
  FROM seq_1_to_${ROWS};`;
const STATE = "SELECT CONNECTION_ID(), IS_USED_LOCK('lab'), GROUP_CONCAT(n) FROM kept;\n";

export const mariadb = programCase(
  { name: 'mariadb', summary: 'a transaction, a long result, the state of a session', port: 3306 },
  async (act) => {
    await serve(act);
    const idle = client(act);
    idle.write('CREATE TEMPORARY TABLE kept (n INT); INSERT INTO kept VALUES (1), (2), (3);\n');
    idle.write(`SELECT GET_LOCK('lab', 0);\n${STATE}`);
    await idle.line('1');
    const transaction = client(act);
    transaction.write('BEGIN; SELECT CONNECTION_ID();\n');
    const stop = transaction.pace(
      TICK_MS,
      (n) => `INSERT INTO ledger (n) VALUES (${n}); SELECT ${n};\n`,
    );
    const result = client(act, '--quick', '-e', LONG_RESULT);
    await result.line('500\t');
    await act.move(3);
    await checkTransaction(act, transaction, stop());
    await checkIdle(act, idle);
    await checkResult(act, result);
  },
);

const USER = '--user=nobody';

function makeTables(directory: string): void {
  runCommand(['chown', 'nobody:', directory]);
  const options = ['--skip-test-db', '--auth-root-authentication-method=normal', USER];
  runCommand(['mariadb-install-db', '--no-defaults', `--datadir=${directory}/data`, ...options]);
}

async function serve(act: Act): Promise<void> {
  const directory = act.prepared('mariadb', makeTables);
  writeFileSync(`${directory}/init.sql`, INIT);
  await act.serve('mariadbd', [
    ...['mariadbd', '--no-defaults', USER, `--datadir=${directory}/data`, `--port=${act.port}`],
    ...[`--socket=${directory}/socket`, `--pid-file=${directory}/pid`, '--bind-address=*'],
    ...['--skip-name-resolve', `--init-file=${directory}/init.sql`],
  ]);
}

const client = (act: Act, ...rest: string[]): Program =>
  act.start('client', 'mariadb', [
    ...['mariadb', '--no-defaults', '--batch', '--skip-column-names', '--unbuffered'],
    ...['--skip-reconnect', '--protocol=tcp', '-u', 'lab', '-h', act.address],
    ...['-P', String(act.port), 'lab', ...rest],
  ]);

async function checkTransaction(act: Act, transaction: Program, inserted: number): Promise<void> {
  transaction.end('COMMIT; SELECT CONNECTION_ID();\n');
  await act.finish('transaction', transaction);
  act.silence(transaction);
  const [before = '', ...rest] = transaction.texts;
  const after = rest.pop() ?? '';
  const answers = `${rest.length} of ${inserted}`;
  act.check('every INSERT is answered once, in order', isSequence(rest, inserted), answers);
  act.check('the same session throughout', before === after, before);
  const ledger = client(act, '-e', 'SELECT n FROM ledger ORDER BY place');
  await act.finish('SELECT', ledger);
  const whole = isSequence(ledger.texts, inserted);
  act.check('it is committed as a whole', whole, `${ledger.lines.length} of ${inserted} rows`);
}

async function checkIdle(act: Act, idle: Program): Promise<void> {
  idle.end(STATE);
  await act.finish('idle session', idle);
  const [locked, before = '', after] = idle.texts;
  const ok = locked === '1' && before === after && before.endsWith('\t1,2,3');
  act.check('the idle session has its lock and its table', ok, idle.texts.join(' | '));
}

async function checkResult(act: Act, result: Program): Promise<void> {
  await act.finish('long result', result);
  const numbers = result.texts.map((text) => text.split('\t')[0] ?? '');
  const whole = isSequence(numbers, ROWS);
  act.check('every row of the long result once, in order', whole, `${numbers.length} of ${ROWS}`);
}
