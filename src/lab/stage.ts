/**
 * The scene of the topology `paper`: transfers between aramis and the VM, and the moves of the
 * VM's cable.
 */
import type { FlowView } from '../daemon/view/view.js';
import { checkFlow, flowOfPort } from './flow-check.js';
import type { Lab, LabOptions, Protected } from './lab.js';
import { writeSysctls } from './namespace.js';
import { Scene } from './scene.js';
import { Transfer, type TransferOptions } from './stream.js';
import type { Site } from './topology.js';

/** One row of the table of cases. */
export interface Case {
  name: string;
  /** what happens, in one line */
  summary: string;
  options: Pick<LabOptions, 'daemons' | 'settings' | 'wire' | 'nat'>;
  play(stage: Stage): Promise<void>;
}

export class Stage extends Scene<Lab> {
  #port = 5001;

  /** Opens a transfer between aramis and the VM on a port of its own. */
  async transfer(o: Partial<TransferOptions> = {}): Promise<PlayedTransfer> {
    const port = this.#port++;
    const options = { client: 'aramis', server: 'vm', family: this.family, port, ...o } as const;
    return { ...options, streams: await Transfer.open(this.lab, options) };
  }

  /** For connections of aramis and the VM that are opened from now on. */
  chooseCongestionControl(name: string): void {
    for (const host of ['vm', 'aramis'] as const) {
      writeSysctls(this.lab.namespaces[host], { 'ipv4/tcp_congestion_control': name });
    }
  }

  /** Unplugs the VM and plugs it in at the site; the moment is kept as that of a move. */
  move(site: Site): number {
    const at = this.lab.move(site);
    this.moves.push(at);
    this.step(`vm moved to ${site}`);
    return at;
  }

  /** The same in two parts, for what happens in between. */
  unplug(): number {
    const at = this.lab.unplug();
    this.moves.push(at);
    this.step('vm unplugged');
    return at;
  }

  plug(site: Site): number {
    const at = this.lab.plug(site);
    this.step(`vm plugged in at ${site}`);
    return at;
  }

  /** Ends the transfer; checks that it was whole; keeps the silences its moves caused. */
  async finish(name: string, transfer: PlayedTransfer): Promise<void> {
    const whole = await transfer.streams.finish();
    this.check(`${name}: every byte arrived, no error`, whole.ok, whole.detail);
    this.noteSilence(transfer.streams);
  }

  /** What the daemon of a host says of the transfer's connection; undefined: nothing. */
  async flow(host: Protected, transfer: PlayedTransfer): Promise<FlowView | undefined> {
    return flowOfPort(this.lab.daemon(host), transfer.port);
  }

  /** Checks that both daemons hold the transfer as one TI flow with so many moves behind it. */
  checkMoved(name: string, transfer: PlayedTransfer, moves: number): Promise<void> {
    const what = `one TI flow at both ends, ${moves} ${moves === 1 ? 'move' : 'moves'}`;
    return this.#checkFlow(`${name}: ${what}`, transfer, (f) => f.moves === moves);
  }

  /** The same where a move may have taken several synchronizations. */
  checkSettled(name: string, transfer: PlayedTransfer): Promise<void> {
    return this.#checkFlow(`${name}: one TI flow at both ends, settled`, transfer, () => true);
  }

  #checkFlow(
    name: string,
    { client, server, port }: PlayedTransfer,
    wanted: (flow: FlowView) => boolean,
  ): Promise<void> {
    const peer = client === 'dartagnan' || server === 'dartagnan' ? 'dartagnan' : 'aramis';
    const ends = [peer, 'vm'].map((host) => ({
      host,
      flow: () => flowOfPort(this.lab.daemon(host as Protected), port),
    }));
    return checkFlow(this, { name, ends, wanted, isTranslated: this.lab.isTranslated });
  }
}

/** A transfer and where to find it in a daemon's list. */
export interface PlayedTransfer extends TransferOptions {
  streams: Transfer;
}
