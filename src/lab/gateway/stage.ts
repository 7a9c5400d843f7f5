/**
 * The scene of the topology `gateway`: transfers between any two hosts, and what the daemons that
 * are in their way hold of them.
 */
import type { FlowView } from '../../daemon/view/view.js';
import { checkFlow, flowOfPort } from '../flow-check.js';
import { Scene } from '../scene.js';
import { Transfer, type TransferOptions } from '../stream.js';
import { now, pause } from '../wait.js';
import type { GatewayLab, GatewayLabOptions } from './lab.js';
import type { GatewayHost, Movable } from './topology.js';

/** One row of the table of cases, of this topology. */
export interface GatewayCase {
  name: string;
  summary: string;
  gateway: GatewayLabOptions;
  play(stage: GatewayStage): Promise<void>;
}

/** A transfer, and the two hosts whose boundaries it goes through. */
export interface GatewayTransfer extends TransferOptions<GatewayHost> {
  streams: Transfer;
  ends: readonly [GatewayHost, GatewayHost];
}

const RATE = 1e6;
/** Long enough for data to be in flight in both directions. */
const WARM_UP_MS = 300;

export class GatewayStage extends Scene<GatewayLab> {
  #port = 5001;

  /** A port that no transfer has had. */
  freshPort(): number {
    return this.#port++;
  }

  /** Opens a transfer that both ends write on, steadily; returns when it flows. */
  async transfer(
    o: Pick<GatewayTransfer, 'client' | 'server' | 'ends'> & Partial<GatewayTransfer>,
  ): Promise<GatewayTransfer> {
    const options = { family: this.family, ...o, port: o.port ?? this.freshPort() };
    const streams = await Transfer.open(this.lab, options);
    streams.write(RATE);
    await streams.flowing(now());
    await pause(WARM_UP_MS);
    return { ...options, streams };
  }

  /** A host gets its other address; the moment is kept as that of a move. */
  renumber(host: Movable): number {
    const at = this.lab.renumber(host);
    this.moves.push(at);
    this.step(`${host} is ${this.lab.address(host, this.family)} now`);
    return at;
  }

  /** Waits until each of them has carried data both ways after the moment. */
  async goOn(name: string, at: number, transfers: readonly GatewayTransfer[]): Promise<void> {
    for (const { streams, port } of transfers) {
      const failure = await streams.flowing(at + 200).then(
        () => '',
        (error: Error) => error.message,
      );
      this.check(`${name}: the transfer on ${port} goes on`, failure === '', failure);
    }
  }

  /** Checks that both boundaries hold the transfer as one TI flow with so many moves behind it. */
  checkMoved(name: string, transfer: GatewayTransfer, moves: number): Promise<void> {
    const ends = transfer.ends.map((host) => ({ host, flow: () => this.flow(host, transfer) }));
    const what = `${transfer.port} is one TI flow at ${transfer.ends.join(' and ')}, moves: ${moves}`;
    return checkFlow(this, { name: `${name}: ${what}`, ends, wanted: (f) => f.moves === moves });
  }

  /** What the daemon of a host says of the transfer's connection; undefined: nothing. */
  flow(host: GatewayHost, { port }: Pick<GatewayTransfer, 'port'>): Promise<FlowView | undefined> {
    return flowOfPort(this.lab.daemon(host), port);
  }

  /** Checks that the gateways know the connection as one of a host behind them. */
  async checkForwarded(transfer: GatewayTransfer): Promise<void> {
    const gateways = transfer.ends.filter((host) => host.startsWith('gw'));
    const flows = await Promise.all(gateways.map((host) => this.flow(host, transfer)));
    const ok = flows.length > 0 && flows.every((flow) => flow?.forwarded === true);
    this.check(`${transfer.port} is of a host behind ${gateways.join(' and ')}`, ok);
  }

  /** Ends the transfer; checks that it was whole; keeps the silences its moves caused. */
  async finish(transfer: GatewayTransfer): Promise<void> {
    const whole = await transfer.streams.finish();
    this.check(`${transfer.port}: every byte arrived, no error`, whole.ok, whole.detail);
    this.noteSilence(transfer.streams);
  }
}
