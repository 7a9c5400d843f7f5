/*
 * What has to be undone however this process ends: the end, an exception, SIGINT, SIGTERM,
 * SIGHUP.  What a SIGKILL leaves is swept by the next run (host.ts).
 */
const SIGNALS: ReadonlyArray<[NodeJS.Signals, number]> = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
];

const undos = new Set<() => void>();
let watching = false;

/** Calls `undo` once: when the result is called, or when the process ends.  Last in, first out. */
export function onEveryExit(undo: () => void): () => void {
  watch();
  const once = (): void => {
    if (undos.delete(once)) undo();
  };
  undos.add(once);
  return once;
}

function watch(): void {
  if (watching) return;
  watching = true;
  process.once('exit', undoAll);
  for (const [signal, code] of SIGNALS) process.once(signal, () => process.exit(code));
}

/* One failure must not keep the rest from being undone. */
function undoAll(): void {
  for (const undo of [...undos].reverse()) {
    try {
      undo();
    } catch (error) {
      console.error(`clean up: ${(error as Error).message}`);
    }
  }
}
