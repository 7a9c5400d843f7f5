/**
 * An ssh session from aramis into the VM, by the stock ssh and sshd: a shell there prints a
 * counter ten times a second and repeats what is typed. Checked for completeness and order.
 */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { LabError } from './namespace.js';
import type { Family } from './topology.js';
import { now, until } from './wait.js';

/* Two writers share the output: a line is one write, so lines stay whole. */
const SHELL = `
(i=0; while :; do i=$((i+1)); echo "count $i"; sleep 0.1; done) & counter=$!
while read -r line; do
  case "$line" in
  'run '*) sh -c "\${line#run }" < /dev/null 2>&1 | sed 's/^/ran /'; echo 'ran.' ;;
  quit) kill "$counter"; wait "$counter" 2>/dev/null; echo bye; exit 0 ;;
  *) echo "echo $line" ;;
  esac
done
`;

/** A VM that aramis can log in to. */
export interface Reachable {
  /** the ssh client that runs the command there, with three pipes */
  logIn(family: Family, command: string): ChildProcess;
}

export class Session {
  readonly #child: ChildProcess;
  readonly #lines: Array<{ text: string; at: number }> = [];
  #standardError = '';
  #typed = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    const { stdout, stderr } = child;
    if (!stdout || !stderr) throw new LabError('ssh session: no pipes');
    createInterface({ input: stdout }).on('line', (text) => this.#lines.push({ text, at: now() }));
    stderr.on('data', (chunk: Buffer) => {
      this.#standardError += chunk.toString();
    });
  }

  /** Logs in and waits for the counter. */
  static async open(vm: Reachable, family: Family): Promise<Session> {
    const session = new Session(vm.logIn(family, SHELL));
    await until('the ssh session to count', () => {
      session.#mustRun();
      return session.#lines.length > 2;
    });
    return session;
  }

  /** Types a line and waits for its echo. Returns the ms that took. */
  async type(boundMs = 20_000): Promise<number> {
    const text = `line ${++this.#typed}`;
    const from = now();
    this.#child.stdin?.write(`${text}\n`);
    await this.#line(`echo ${text}`, from, boundMs);
    return now() - from;
  }

  /** The session's SSH_ variables, as the shell has them. */
  environment(boundMs = 20_000): Promise<string[]> {
    return this.run('env | grep ^SSH_ | sort', boundMs);
  }

  /** Runs a command in the session; what it said, line by line. */
  async run(command: string, boundMs = 20_000): Promise<string[]> {
    const before = this.#lines.length;
    this.#child.stdin?.write(`run ${command}\n`);
    const end = await until(
      `"${command}" in the ssh session`,
      () => {
        this.#mustRun();
        const at = this.#lines.findIndex((l, i) => i >= before && l.text === 'ran.');
        return at >= 0 && at;
      },
      boundMs,
    );
    const said = this.#lines.slice(before, end).map((l) => l.text);
    return said.filter((text) => text.startsWith('ran ')).map((text) => text.slice(4));
  }

  /** Waits until the session has counted on after the moment. Returns that moment. */
  async counting(sinceMs: number, boundMs = 20_000): Promise<number> {
    const counted = () => this.#lines.find((l) => l.at > sinceMs && l.text.startsWith('count '));
    const line = await until('the ssh session to count on', counted, boundMs);
    return line.at;
  }

  /** Whether the session stands. */
  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The longest silence that touches the time from `from` to `to`, in ms. */
  silence(from: number, to: number): number {
    const pairs = this.#lines
      .slice(1)
      .map((line, i) => [this.#lines[i]?.at ?? 0, line.at] as const);
    const touching = pairs.filter(([start, end]) => end >= from && start < to);
    return touching.reduce((longest, [start, end]) => Math.max(longest, end - start), 0);
  }

  /** Ends the session; whether all it printed came, in order, and ssh was content. */
  async finish(boundMs = 20_000): Promise<{ ok: boolean; detail: string }> {
    this.#child.stdin?.write('quit\n');
    const ended = () => !this.alive;
    const late = await until('the end of the ssh session', ended, boundMs).then(
      () => '',
      (error: Error) => `, ${error.message}`,
    );
    const texts = this.#lines.map((l) => l.text);
    const counts = texts.filter((t) => t.startsWith('count ')).map((t) => Number(t.slice(6)));
    const inOrder = counts.every((n, i) => n === i + 1);
    const echoes = texts.filter((t) => t.startsWith('echo line ')).map((t) => Number(t.slice(10)));
    const echoed = echoes.length === this.#typed && echoes.every((n, i) => n === i + 1);
    const bye = texts.at(-1) === 'bye' && this.#child.exitCode === 0;
    const detail = `counted to ${counts.length}${inOrder ? '' : ' OUT OF ORDER'}, ${
      echoes.length
    } of ${this.#typed} lines echoed, exit ${this.#child.exitCode}${late}`;
    return { ok: inOrder && echoed && bye && late === '', detail: detail + this.#complaint() };
  }

  #complaint(): string {
    return this.#standardError === '' ? '' : `, ssh said: ${this.#standardError.trim()}`;
  }

  #mustRun(): void {
    if (this.alive) return;
    throw new LabError(`the ssh session ended early${this.#complaint()}`);
  }

  #line(text: string, fromMs: number, boundMs: number): Promise<unknown> {
    return until(
      `"${text}" in the ssh session`,
      () => {
        this.#mustRun();
        return this.#lines.find((l) => l.at >= fromMs && l.text === text);
      },
      boundMs,
    );
  }
}
