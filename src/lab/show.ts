/**
 * A case told to somebody at a terminal of 80 columns: the steps as they happen; then, before
 * beside after, what the paper shows in its figures 3 to 6; the timeline of the move; the
 * verdict.
 */
import { type Paint, painterFor } from '../cli/table.js';
import type { CaseResult } from './runner.js';
import type { Check, Exhibit, Moment } from './scene.js';

const WIDTH = 80;
const AXIS = 24;

export class Show {
  readonly #out: NodeJS.WriteStream;
  readonly #paint: Paint;
  readonly #exhibits: Exhibit[] = [];

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#paint = painterFor(out);
  }

  begin(name: string, summary: string, over: string): void {
    this.#heading(`${name}, ${over}: ${summary}`);
  }

  /** Checks are told at the end, with the rest of the result. */
  step(text: string, afterMs: number): void {
    if (/^(ok {2}|FAIL) /.test(text)) return;
    const line = `${(afterMs / 1e3).toFixed(2).padStart(6)} s  ${text}`;
    for (const part of wrap(line, WIDTH, 10)) this.#line(part);
  }

  exhibit(exhibit: Exhibit): void {
    this.#exhibits.push(exhibit);
  }

  end(result: CaseResult): void {
    for (const figure of new Set(this.#exhibits.map((e) => e.figure))) this.#figure(figure);
    if (result.timeline.length > 0) this.#timeline(result.timeline);
    this.#verdict(result);
  }

  #figure(figure: number): void {
    const parts = this.#exhibits.filter((e) => e.figure === figure);
    this.#heading(`Figure ${figure}. ${parts[0]?.title}`);
    for (const when of ['before', 'after'] as const) {
      for (const { command, lines } of parts.filter((e) => e.when === when)) {
        this.#line(`  ${when.padEnd(8)}${this.#paint('dim', `$ ${command}`)}`);
        for (const part of lines.flatMap((line) => wrap(`    ${line}`, WIDTH, 6))) this.#line(part);
      }
    }
  }

  #timeline(timeline: readonly Moment[]): void {
    this.#heading('Timeline of the move');
    const total = Math.max(1, ...timeline.map((m) => m.after_ms));
    this.#line(this.#paint('dim', `  ${'ms'.padStart(8)}  ${'host'.padEnd(7)}`));
    for (const { after_ms, host, what } of timeline) {
      const at = Math.round((after_ms / total) * (AXIS - 1));
      const axis = `${'·'.repeat(at)}${this.#paint('green', '●')}${'·'.repeat(AXIS - 1 - at)}`;
      const text = `${after_ms.toFixed(1).padStart(8)}  ${host.padEnd(7)}${what}`;
      this.#line(`  ${text.padEnd(WIDTH - AXIS - 4)}${axis}`);
    }
  }

  #verdict(result: CaseResult): void {
    this.#heading('Result');
    for (const check of result.checks) this.#check(check);
    const gaps = result.gap_ms.map((gap) => `${gap} ms`).join(', ');
    const verdict = result.ok ? 'The connections have outlived the address.' : 'FAILED.';
    this.#line('');
    this.#line(`  ${this.#paint(result.ok ? 'green' : 'red', verdict)}`);
    this.#line(`  The longest silence that a program met: ${gaps || 'none'}.`);
    this.#line('');
  }

  #check({ name, ok, detail }: Check): void {
    const mark = ok ? this.#paint('green', 'ok  ') : this.#paint('red', 'FAIL');
    this.#line(`  ${mark}  ${name}`);
    for (const part of wrap(detail, WIDTH - 8, 0)) {
      if (part !== '') this.#line(this.#paint('dim', `        ${part}`));
    }
  }

  #heading(text: string): void {
    this.#line('');
    for (const part of wrap(text, WIDTH, 2)) this.#line(this.#paint('bold', part));
    this.#line(this.#paint('dim', '─'.repeat(WIDTH)));
  }

  #line(text: string): void {
    this.#out.write(`${text}\n`);
  }
}

/** Breaks between words; lines after the first are indented. */
function wrap(text: string, width: number, indent: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/(?<=\S) (?=\S)/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = ' '.repeat(indent) + word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
