/**
 * A stranger who has seen everything that went over the wire sends TI_SYNC of its own making to
 * aramis. Nothing may move, the answers are those of the protocol, the flow goes on.
 *
 * Without a pre-shared key, who has seen the set-up can compute the flow's keys. The forger here
 * does, to get past the MAC to the checks behind it: epoch, TIAck, return routability.
 *
 * Silence is proven without waiting for it: a SYN that must be answered follows each that must
 * not, and by the time of its answer the other one's is overdue.
 */
import { deriveKeys, isRstFrom, type Keys, type Sync, signSync } from '../../sync/keys.js';
import { address } from '../../wire/address.js';
import { encodeOption } from '../../wire/option.js';
import type { Packet } from '../../wire/packet.js';
import { seq, seqAdd } from '../../wire/seq.js';
import { Injector } from '../injector.js';
import { Sniffer } from '../sniffer.js';
import type { Case, PlayedTransfer, Stage } from '../stage.js';
import type { Family } from '../topology.js';
import { now } from '../wait.js';
import { moveAndWait } from './moves.js';

const STRANGER: Record<Family, string> = { 4: '192.0.2.77', 6: '2001:db8:1::77' };
const NOTHING = new Uint8Array(0);
const WRONG_MAC = new Uint8Array(8);
const TIACK_FAR_OFF = 0x4000_0000;

export const forged: Case = {
  name: 'forged',
  summary: 'TI_SYNC of a stranger: unknown, wrong, stale, out of range, replayed',
  options: { daemons: ['aramis', 'vm'] },
  async play(stage) {
    const { lab, family } = stage;
    const atAramis = await Sniffer.start(lab, 'aramis', family);
    const transfer = await stage.transfer();
    transfer.streams.write(1e6);
    await transfer.streams.flowing(now());
    lab.plugStranger('athos', STRANGER[family]);
    const forger = await Forger.begin(stage, transfer, atAramis);

    // At rest, TIAck of the true mover is what its program has read.
    transfer.streams.pause();
    await transfer.streams.quiet();
    const before = await stage.flow('aramis', transfer);
    const { received } = await transfer.streams.server.report();
    await refusedByReset(stage, forger, received);
    await refusedByTiRst(stage, forger);
    await unconfirmed(stage, forger, received);
    const after = await stage.flow('aramis', transfer);
    const same = before?.wire === after?.wire && before?.wire !== undefined && after?.moves === 0;
    stage.check('nothing has moved', same, `wire ${after?.wire}, ${after?.moves} moves`);

    transfer.streams.write(1e6);
    await moveAndWait(stage, transfer, 'porthos');
    await replayed(stage, forger, atAramis);
    await transfer.streams.flowing(now());
    await stage.checkMoved('transfer', transfer, 1);
    await stage.finish('transfer', transfer);
  },
};

async function refusedByReset(stage: Stage, forger: Forger, tiack: number): Promise<void> {
  const { initiatorHalf, responderHalf } = forger.tifid;
  const forgeries: Array<[string, Partial<Sync>]> = [
    ['unknown TIFID', { initiatorHalf: (initiatorHalf ^ 1) >>> 0 }],
    ['TIFID half known, half wrong', { responderHalf: (responderHalf ^ 1) >>> 0 }],
    ['wrong MAC', { mac: WRONG_MAC }],
    ['stale epoch', { epoch: 0 }],
  ];
  for (const [name, changes] of forgeries) {
    const answer = await forger.answerTo(forger.syn({ tiack, ...changes }));
    stage.check(`${name}: a bare reset`, isBareReset(answer), describe(answer));
  }
}

async function refusedByTiRst(stage: Stage, forger: Forger): Promise<void> {
  const answer = await forger.answerTo(forger.syn({ tiack: TIACK_FAR_OFF }));
  const rst = answer.options.find((o) => o.kind === 'ti-rst');
  const ok = answer.flags.includes('R') && rst !== undefined;
  const signed = ok && isRstFrom(forger.keys.initiator, rst);
  stage.check('TIAck out of range: a reset with a valid TI_RST', signed, describe(answer));
}

/**
 * A right SYN, as if captured before it arrived and sent from elsewhere: it is answered by one
 * SYN/ACK, and only who can confirm may go on. A CONFIRM with a wrong MAC and a reset are what
 * the stranger can still try.
 */
async function unconfirmed(stage: Stage, forger: Forger, tiack: number): Promise<void> {
  const syn = forger.syn({ tiack, epoch: 1 });
  const answer = await forger.answerTo(syn);
  const synAck = answer.options.some((o) => o.kind === 'ti-sync-ack');
  stage.check(
    'a right SYN from elsewhere: a SYN/ACK',
    answer.flags === 'SA' && synAck,
    describe(answer),
  );
  const confirm: Packet = {
    ...syn,
    flags: 'A',
    seq: seqAdd(syn.seq, 1),
    ack: seqAdd(answer.seq, 1),
    options: [{ kind: 'ti-confirm', epoch: 1, mac: new Uint8Array(16) }],
  };
  stage.check('CONFIRM with a wrong MAC: silence', await forger.isUnanswered(confirm));
}

/** The SYN of the move that has just been made, seen at aramis, from another address. */
async function replayed(stage: Stage, forger: Forger, atAramis: Sniffer): Promise<void> {
  const isSync = (p: Packet): boolean =>
    p.flags === 'S' && p.options.some((o) => o.kind === 'ti-sync');
  // Not one of aramis itself, which has one sent where it waits for long.
  const real = await atAramis.waitFor(
    "the mover's SYN",
    (p) => isSync(p) && p.source !== forger.source && p.destination === forger.target,
  );
  const replay = { ...real, source: forger.source };
  const answer = await forger.answerTo(replay);
  const name = 'replay of the SYN from another address: a bare reset';
  stage.check(name, isBareReset(answer), describe(answer));
}

class Forger {
  readonly source: Packet['source'];
  readonly target: Packet['destination'];
  #port = 61_000;

  private constructor(
    family: Family,
    private readonly injector: Injector,
    private readonly sniffer: Sniffer,
    private readonly to: Pick<Packet, 'destination' | 'destinationPort'>,
    readonly keys: Keys,
    readonly tifid: Pick<Sync, 'initiatorHalf' | 'responderHalf'>,
  ) {
    this.source = address(STRANGER[family]);
    this.target = to.destination;
  }

  /** Knows what was to be seen at aramis of the transfer's set-up. */
  static async begin(stage: Stage, transfer: PlayedTransfer, seen: Sniffer): Promise<Forger> {
    const isPort = (p: Packet): boolean =>
      p.destinationPort === transfer.port || p.sourcePort === transfer.port;
    const opens = async (flags: string) => {
      const what = `TI_OPEN of the transfer (${flags})`;
      const packet = await seen.waitFor(
        what,
        (p) => isPort(p) && p.flags.replace(/[EC]/g, '') === flags,
      );
      const open = packet.options.find((o) => o.kind === 'ti-open');
      if (!open) throw new Error(`no TI_OPEN on the ${flags} of the transfer`);
      return { packet, open };
    };
    const [syn, synAck] = [await opens('S'), await opens('SA')];
    return new Forger(
      stage.family,
      await Injector.start(stage.lab, 'stranger'),
      await Sniffer.start(stage.lab, 'stranger', stage.family),
      { destination: syn.packet.source, destinationPort: syn.packet.sourcePort },
      deriveKeys(encodeOption(syn.open), encodeOption(synAck.open)),
      { initiatorHalf: syn.open.tifidHalf, responderHalf: synAck.open.tifidHalf },
    );
  }

  /** A SYN to aramis as the mover would send it, but for `changes`, from a port of its own. */
  syn(changes: Partial<Sync>): Packet {
    const unsigned = {
      kind: 'ti-sync',
      epoch: 1,
      ...this.tifid,
      tiack: 0,
      nonce: 0x0badcafe,
      ...changes,
    } as const;
    const sync = { ...signSync(this.keys.responder, unsigned), ...changes };
    return {
      ...this.to,
      source: this.source,
      sourcePort: this.#port++,
      flags: 'S',
      seq: seq(0x1234_5678),
      ack: seq(0),
      window: 65_535,
      options: [
        { kind: 'mss', mss: 1400 },
        { kind: 'sack-permitted' },
        { kind: 'wscale', shift: 7 },
        sync,
      ],
      payload: NOTHING,
    };
  }

  /** Sends it; the first packet that comes back to its port. */
  answerTo(packet: Packet): Promise<Packet> {
    const since = this.sniffer.packets.length;
    this.injector.send(packet);
    return this.sniffer.waitFor(
      `an answer to ${describe(packet)}`,
      (p) => this.#isAnswer(p, packet),
      since,
      5_000,
    );
  }

  /** Sends it, then one that is answered; whether only that one was. */
  async isUnanswered(packet: Packet): Promise<boolean> {
    const since = this.sniffer.packets.length;
    this.injector.send(packet);
    await this.answerTo(this.syn({ mac: WRONG_MAC }));
    return !this.sniffer.packets.slice(since).some((p) => this.#isAnswer(p, packet));
  }

  #isAnswer = (p: Packet, to: Packet): boolean =>
    p.source === to.destination && p.destinationPort === to.sourcePort;
}

const isBareReset = (p: Packet): boolean =>
  p.flags === 'RA' && !p.options.some((o) => o.kind === 'ti-rst');

const describe = (p: Packet): string => `${p.flags} <${p.options.map((o) => o.kind).join(',')}>`;
