/**
 * Plays a case in a lab of its own and says how it went. The lab is taken down on every way
 * out: the end, a failure, SIGINT, SIGTERM, an exception; what a SIGKILL leaves is swept by the
 * next run.
 */
import { type AnyCase, findCase } from './cases/table.js';
import { GatewayLab } from './gateway/lab.js';
import { GatewayStage } from './gateway/stage.js';
import { Lab } from './lab.js';
import { sweepStale } from './registry.js';
import type { Check, Exhibit, Moment, Scene, SceneOptions } from './scene.js';
import { Stage } from './stage.js';
import type { Family } from './topology.js';
import { TwinsLab } from './twins/lab.js';
import { TwinsStage } from './twins/stage.js';
import { VmLab } from './vm/lab.js';
import { VmStage } from './vm/stage.js';
import { now } from './wait.js';
import type { WireSettings } from './wire.js';

export interface RunOptions {
  /** real guests talk over both, whatever is said here */
  family: Family;
  seed: number;
  /** an impairment, as in 'delay=50ms,loss=1%'; undefined: what the case says */
  wire?: string | undefined;
  /** leave the lab standing if the case fails */
  keep?: boolean | undefined;
  onStep?: ((text: string, afterMs: number) => void) | undefined;
  onExhibit?: ((exhibit: Exhibit) => void) | undefined;
}

/** The JSON line of a case: `ok` only if every check is. */
export interface CaseResult {
  version: 1;
  case: string;
  family: Family | 'both';
  ok: boolean;
  moves: number;
  /** per move: the longest silence that a program met, ms */
  gap_ms: number[];
  checks: Check[];
  figures: Record<string, number>;
  timeline: Moment[];
  seed: number;
  duration_ms: number;
}

const ENDING: ReadonlyArray<[NodeJS.Signals, number]> = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
];

/** Throws LabError only if there is no such case; any failure else is in the result. */
export async function runCase(name: string, o: RunOptions): Promise<CaseResult> {
  const play = findCase(name);
  const begun = now();
  const onStep = (text: string): void => o.onStep?.(text, now() - begun);
  for (const swept of sweepStale()) onStep(`swept lab ${swept} that a dead run left behind`);
  const { lab, scene, perform } = rehearse(play, o, onStep);
  const release = onEveryExit(() => lab.teardown());
  let failure: Check | undefined;
  try {
    await lab.build();
    onStep(`lab ${lab.record.topology} is up`);
    await perform();
  } catch (error) {
    failure = { name: 'the case could be played', ok: false, detail: (error as Error).message };
    onStep(`FAIL ${failure.name}: ${failure.detail}`);
  }
  const result = outcome(play, o, scene, failure, now() - begun);
  endLab(lab, result.ok, o, onStep);
  release();
  return result;
}

type PlayedLab = Pick<Lab, 'record' | 'build' | 'teardown' | 'lastWords' | 'keep'>;

interface Rehearsed {
  lab: PlayedLab;
  scene: Scene<unknown>;
  perform: () => Promise<void>;
}

/** The lab, on record but not built, that the case plays in, and its scene. */
function rehearse(play: AnyCase, o: RunOptions, onStep: (text: string) => void): Rehearsed {
  const name = `run-${process.pid}`;
  const about = <L>(lab: L): SceneOptions<L> => ({
    lab,
    family: o.family,
    seed: o.seed,
    onStep,
    onExhibit: o.onExhibit,
  });
  if ('vm' in play) {
    const lab = VmLab.prepare(name, true, play.vm);
    const stage = new VmStage(about(lab));
    return { lab, scene: stage, perform: () => play.play(stage) };
  }
  if ('gateway' in play) {
    const lab = GatewayLab.prepare(name, true, play.gateway);
    const stage = new GatewayStage(about(lab));
    return { lab, scene: stage, perform: () => play.play(stage) };
  }
  if ('twins' in play) {
    const lab = TwinsLab.prepare(name, true, play.twins);
    const stage = new TwinsStage(about(lab));
    return { lab, scene: stage, perform: () => stage.perform(play) };
  }
  const lab = Lab.prepare({ ...play.options, ...wireOf(o), name, owned: true });
  const stage = new Stage(about(lab));
  return { lab, scene: stage, perform: () => play.play(stage) };
}

const wireOf = (o: RunOptions): { wire?: WireSettings } =>
  o.wire === undefined ? {} : { wire: { impairment: o.wire, seed: o.seed } };

function endLab(lab: PlayedLab, ok: boolean, o: RunOptions, onStep: (text: string) => void): void {
  if (!ok) for (const line of lab.lastWords()) onStep(line);
  if (!ok && o.keep) {
    lab.keep();
    onStep(`lab ${lab.record.name} is kept (tiflow lab down --name ${lab.record.name})`);
  } else {
    lab.teardown();
  }
}

function outcome(
  { name, ...play }: AnyCase,
  o: RunOptions,
  scene: Scene<unknown>,
  failure: Check | undefined,
  durationMs: number,
): CaseResult {
  const checks = [...scene.checks, ...(failure ? [failure] : [])];
  return {
    version: 1,
    case: name,
    family: 'vm' in play ? 'both' : o.family,
    ok: checks.length > 0 && checks.every((check) => check.ok),
    moves: scene.moves.length,
    gap_ms: scene.gapsMs,
    checks,
    figures: scene.figures,
    timeline: scene.timeline,
    seed: o.seed,
    duration_ms: Math.round(durationMs),
  };
}

/** Calls `end` once, however this process ends; the result takes that back. */
export function onEveryExit(end: () => void): () => void {
  const onExit = (): void => end();
  const onSignal = ENDING.map(([signal, code]) => {
    const handler = (): void => {
      end();
      process.exit(code);
    };
    process.once(signal, handler);
    return () => process.off(signal, handler);
  });
  process.once('exit', onExit);
  return () => {
    process.off('exit', onExit);
    for (const off of onSignal) off();
  };
}
