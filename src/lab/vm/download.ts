/**
 * A download from the guest's web server by the stock curl on aramis, slowed down so that a
 * migration happens in its middle; compared by checksum with the file in the guest.
 */
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { LabError } from '../namespace.js';
import type { Family } from '../topology.js';
import { until } from '../wait.js';
import { urlHost } from './echo.js';
import type { VmLab } from './lab.js';

export class Download {
  readonly #child: ChildProcess;
  readonly #file: string;
  readonly #sha256: string;
  #standardError = '';

  private constructor(child: ChildProcess, file: string, sha256: string) {
    this.#child = child;
    this.#file = file;
    this.#sha256 = sha256;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#standardError += chunk.toString();
    });
  }

  /** Begins; returns when the first bytes are there. `rate`: as curl's --limit-rate has it. */
  static async start(lab: VmLab, family: Family, rate: string): Promise<Download> {
    const address = lab.vmAddress(family);
    const sum = await until('the guest to make its file', () => {
      const text = lab.inGuest('test ! -e /www/big || cat /www/big.sha256', address);
      return text.slice(0, 64) || undefined;
    });
    mkdirSync(`${lab.directory}/aramis`, { recursive: true });
    const file = `${lab.directory}/aramis/big-${family}`;
    const url = `http://${urlHost(address, family)}/big`;
    const argv = ['curl', '-sS', '-f', '--limit-rate', rate, '-o', file, url];
    const child = lab.spawn('aramis', 'curl', argv, ['ignore', 'ignore', 'pipe']);
    const download = new Download(child, file, sum);
    await until('the download to begin', () => {
      if (download.running || download.bytes > 0) return download.bytes > 0;
      throw new LabError(`curl has ended early: ${download.#standardError}`);
    });
    return download;
  }

  /** How much has arrived. */
  get bytes(): number {
    return existsSync(this.#file) ? statSync(this.#file).size : 0;
  }

  get running(): boolean {
    return this.#child.exitCode === null;
  }

  /** Waits for its end; whether curl was content and the file is that of the guest. */
  async finish(boundMs = 60_000): Promise<{ ok: boolean; detail: string }> {
    const late = await until('the end of the download', () => !this.running, boundMs).then(
      () => '',
      (error: Error) => `, ${error.message}`,
    );
    const bytes = existsSync(this.#file) ? readFileSync(this.#file) : Buffer.alloc(0);
    const right = createHash('sha256').update(bytes).digest('hex') === this.#sha256;
    const said = this.#standardError === '' ? '' : `, curl said: ${this.#standardError.trim()}`;
    const detail = `${bytes.length} bytes, checksum ${right ? 'right' : 'WRONG'}, exit ${this.#child.exitCode}`;
    return { ok: right && this.#child.exitCode === 0, detail: detail + late + said };
  }
}
