// Counts of a rollout's targets, as words and as a bar.
import { useTranslation } from "react-i18next";
import type { Rollout, Target, Wave } from "../api/generated";
import { useWord } from "../ui/state";

/** Tally counts boxes in the order in which people want to read them. */
export type Tally = { total: number; by: [string, number][] };

const order = [
  "succeeded",
  "failed",
  "unreachable",
  "held-up",
  "working",
  "offered",
  "scheduled",
  "superseded",
  "canceled",
];

/**
 * shownAs is the state of a box as people read it. The controller counts one whose disk
 * is full or fails as not heard from, though it is: neither is evidence for or against.
 */
export const shownAs = ({ state, err_said }: Target): string =>
  state === "unreachable" && err_said?.code?.startsWith("held-up") ? "held-up" : state;

/** tally counts all boxes; a list of rollouts has their counts alone. */
export function tally(waves: readonly Wave[]): Tally {
  const counts = new Map<string, number>();
  for (const wave of waves) {
    for (const [state, count] of Object.entries(wave.counts ?? {})) {
      counts.set(state, (counts.get(state) ?? 0) + count);
    }
  }
  const held = waves.flatMap((wave) => wave.targets).filter((target) => shownAs(target) === "held-up").length;
  if (held > 0) {
    counts.set("held-up", held);
    const silent = (counts.get("unreachable") ?? 0) - held;
    if (silent > 0) counts.set("unreachable", silent);
    else counts.delete("unreachable");
  }
  const known = order.filter((state) => counts.has(state));
  const others = [...counts.keys()].filter((state) => !order.includes(state));
  return {
    total: [...counts.values()].reduce((sum, count) => sum + count, 0),
    by: [...known, ...others].map((state) => [state, counts.get(state) ?? 0]),
  };
}

export const targetsOf = (rollout: Rollout): Target[] => rollout.waves.flatMap((wave) => wave.targets);

export const countOf = (t: Tally, ...states: string[]): number =>
  t.by.reduce((sum, [state, count]) => (states.includes(state) ? sum + count : sum), 0);

/** useTallyWords says a tally: "3 of 5 succeeded, 1 failed, 1 waiting". */
export function useTallyWords(): (t: Tally) => string {
  const { t } = useTranslation();
  const word = useWord();
  return (counts) => {
    const done = countOf(counts, "succeeded");
    const rest = counts.by
      .filter(([state]) => state !== "succeeded")
      .map(([state, count]) => `${count} ${word("target", state)}`);
    return [t("rollout.doneOf", { done, total: counts.total }), ...rest].join(", ");
  };
}

const fills: Record<string, string> = {
  succeeded: "bg-ok",
  failed: "bg-hot",
  unreachable: "bg-warm",
  "held-up": "bg-warm",
  working: "bg-busy",
  offered: "hatched bg-busy-tint",
};

export function Bar({ counts }: { counts: Tally }) {
  return (
    <div className="flex h-2.5 overflow-hidden rounded bg-line" aria-hidden="true">
      {counts.by.map(([state, count]) => (
        <div key={state} style={{ flexGrow: count }} className={`basis-0 ${fills[state] ?? ""}`} />
      ))}
    </div>
  );
}
