/**
 * rsync and its daemon: a tree of files there, and another one back.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { type Act, programCase } from './act.js';
import { compareFiles, writePatternFile } from './files.js';

const FILES = 270;
const KIB_PER_FILE = 48;
/** of each of the two transfers: 4 s */
const KIB_PER_S = 3200;

export const rsync = programCase(
  { name: 'rsync', summary: 'a tree of files there, another one back', port: 873 },
  async (act) => {
    const server = act.directory('server', 'rsync');
    const client = act.directory('client', 'rsync-client');
    await serve(act, server);
    const trees = {
      push: { from: makeTree(client, 1), to: `${server}/received` },
      pull: { from: makeTree(server, 2), to: `${client}/received` },
    };
    const url = `rsync://${act.urlHost}:${act.port}/lab`;
    const options = ['-r', `--bwlimit=${KIB_PER_S}`, '--outbuf=L', '--out-format=%n'];
    const push = act.start('client', 'rsync-push', [
      ...['rsync', ...options, `${trees.push.from}/`, `${url}/received/`],
    ]);
    const pull = act.start('client', 'rsync-pull', [
      ...['rsync', ...options, `${url}/tree-2/`, `${trees.pull.to}/`],
    ]);
    await Promise.all([push.line('10'), pull.line('10')]);
    await act.move(2);
    for (const [name, program] of [
      ['push', push],
      ['pull', pull],
    ] as const) {
      await act.finish(name, program);
      act.silence(program);
      act.check(`${name}: every file arrived whole`, ...compareTrees(trees[name]));
    }
  },
);

async function serve(act: Act, directory: string): Promise<void> {
  const config = `${directory}/rsyncd.conf`;
  writeFileSync(
    config,
    // The lab has no resolver: each lookup would take 5 s.
    `pid file = ${directory}/pid
log file = ${directory}/log
reverse lookup = no
[lab]
path = ${directory}
use chroot = no
uid = root
gid = root
read only = no
`,
  );
  const daemon = ['rsync', '--daemon', '--no-detach', `--config=${config}`, `--port=${act.port}`];
  await act.serve('rsyncd', daemon);
}

/** Files of the pattern, no two alike; returns their directory. */
function makeTree(directory: string, number: number): string {
  const tree = `${directory}/tree-${number}`;
  mkdirSync(tree);
  for (let i = 0; i < FILES; i++) {
    writePatternFile(`${tree}/${100 + i}`, KIB_PER_FILE << 10, number * 7_000_000 + i * 1009);
  }
  return tree;
}

function compareTrees(o: { from: string; to: string }): [boolean, string] {
  const [sent, received] = [readdirSync(o.from), readdirSync(o.to)];
  if (sent.join() !== received.join()) {
    return [false, `${received.length} of ${sent.length} files`];
  }
  const wrong = sent
    .map((name) => compareFiles(`${o.from}/${name}`, `${o.to}/${name}`))
    .find(([same]) => !same);
  return wrong ?? [true, `${sent.length} files of ${KIB_PER_FILE} KiB`];
}
