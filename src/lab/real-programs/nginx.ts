/**
 * nginx and curl over TLS, where a single wrong byte ends the connection: a download, an upload,
 * and many small requests on one connection that is kept alive.
 */
import { writeFileSync } from 'node:fs';
import { runCommand } from '../namespace.js';
import { type Act, programCase } from './act.js';
import { compareFiles, writePatternFile } from './files.js';
import type { Program } from './program.js';

const NAME = 'lab.test';
const BYTES = 16_000_000;
const BYTES_PER_S = 4_000_000;
const REQUESTS = 200;

export const nginx = programCase(
  { name: 'nginx', summary: 'nginx and curl over TLS, up, down and kept alive', port: 443 },
  async (act) => {
    const server = act.directory('server', 'nginx');
    const client = act.directory('client', 'curl');
    await serve(act, server);
    writePatternFile(`${server}/www/file`, BYTES);
    const curl = (what: string, ...rest: string[]): Program =>
      act.start('client', what, [...curlTo(act, `${server}/certificate`), ...rest]);
    const url = `https://${NAME}:${act.port}`;
    const down = curl('download', '-o', `${client}/file`, `${url}/file`);
    const limit = ['--limit-rate', String(BYTES_PER_S)];
    const up = curl('upload', ...limit, '-T', `${server}/www/file`, `${url}/up/file`);
    const many = curl(
      'requests',
      ...['-N', '--rate', '50/s', '-w', '%{num_connects}\\n'],
      `${url}/n/[1-${REQUESTS}]`,
    );
    await act.move(3);
    await checkRequests(act, many);
    await act.finish('download', down);
    act.check('the download is whole', ...compareFiles(`${server}/www/file`, `${client}/file`));
    await act.finish('upload', up);
    act.check(
      'the upload is whole',
      ...compareFiles(`${server}/www/file`, `${server}/www/up/file`),
    );
  },
);

async function serve(act: Act, directory: string): Promise<void> {
  runCommand(['mkdir', '-p', `${directory}/www/up`, `${directory}/body`]);
  const subject = ['-subj', `/CN=${NAME}`, '-addext', `subjectAltName=DNS:${NAME}`];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const files = ['-keyout', `${directory}/key`, '-out', `${directory}/certificate`];
  runCommand(['openssl', 'req', '-x509', '-days', '2', ...subject, ...key, ...files]);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  writeFileSync(
    `${directory}/nginx.conf`,
    `daemon off; user root; worker_processes 1; pid ${directory}/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off; keepalive_requests 10000;
  ${temporary.map((name) => `${name}_temp_path ${directory}/body;`).join(' ')}
  server {
    listen ${act.port} ssl; listen [::]:${act.port} ssl;
    ssl_certificate ${directory}/certificate; ssl_certificate_key ${directory}/key;
    root ${directory}/www; client_max_body_size 0;
    location /up/ { dav_methods PUT; }
    location /n/ { return 200 "$uri\\n"; }
    location / { limit_rate ${BYTES_PER_S}; }
  }
}
`,
  );
  await act.serve('nginx', [
    'nginx',
    '-p',
    directory,
    '-c',
    `${directory}/nginx.conf`,
    '-e',
    'stderr',
  ]);
}

const curlTo = (act: Act, certificate: string): string[] => [
  ...['curl', '-q', '--no-progress-meter', '--fail', '--noproxy', '*', '--http1.1'],
  ...['--cacert', certificate, '--resolve', `${NAME}:${act.port}:${act.urlHost}`],
];

async function checkRequests(act: Act, requests: Program): Promise<void> {
  await act.finish('requests', requests);
  act.silence(requests);
  const wanted = Array.from({ length: REQUESTS }, (_, i) => [`/n/${i + 1}`, i === 0 ? '1' : '0']);
  const ok = requests.texts.join() === wanted.flat().join();
  const detail = `${requests.lines.length / 2} of ${REQUESTS} answers`;
  act.check('every request is answered in order, on one connection', ok, detail);
}
