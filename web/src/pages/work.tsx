// What was done to boxes, as a technician says it: one line a box, each with
// the work and the part that it took.
import { useTranslation } from "react-i18next";
import type { Work } from "../api/generated";
import { useWord } from "../ui/state";

export const workKinds = [
  "inspected",
  "cleaned",
  "filter-installed",
  "fan-replaced",
  "paste-replaced",
  "ssd-replaced",
  "psu-replaced",
  "vent-cleared",
  "moved",
  "box-replaced",
] as const;

/** Line is one box with the work on it; "" is no work. */
export type Line = { box: string; kind: string; part: string };

/** usual is the work that a cause asks for, offered first. */
export const usual: Record<string, string> = {
  airflow: "cleaned",
  undetermined: "cleaned",
  paste: "paste-replaced",
  "blocked-vent": "vent-cleared",
  "fan-wear": "fan-replaced",
  "fan-stop": "fan-replaced",
  "drive-wear": "ssd-replaced",
  "power-supply": "psu-replaced",
};

export const worksOf = (lines: Line[]): Work[] =>
  lines
    .filter((line) => line.kind !== "")
    .map(({ box, kind, part }) => ({
      ...(box && { box }),
      kind: kind as Work["kind"],
      ...(part.trim() && { part: part.trim() }),
    }));

export function WorkLines({ lines, change }: { lines: Line[]; change: (lines: Line[]) => void }) {
  const { t } = useTranslation();
  const word = useWord();
  const set = (at: number, part: Partial<Line>) =>
    change(lines.map((line, i) => (i === at ? { ...line, ...part } : line)));
  return (
    <fieldset className="min-w-0">
      <legend className="mb-1 font-semibold">{t("work.title")}</legend>
      <div className="grid grid-cols-[minmax(0,1fr)] gap-2">
        {lines.map((line, i) => {
          const of = line.box ? `, ${line.box}` : "";
          return (
            <div key={line.box} className="flex flex-wrap items-center gap-2">
              {line.box && <span className="min-w-24 flex-1 truncate">{line.box}</span>}
              <select
                className="input flex-1"
                aria-label={t("work.kind") + of}
                value={line.kind}
                onChange={(event) => set(i, { kind: event.target.value })}
              >
                <option value="">{t("work.none")}</option>
                {workKinds.map((kind) => (
                  <option key={kind} value={kind}>
                    {word("work", kind)}
                  </option>
                ))}
              </select>
              <input
                className="input w-32 min-w-0 flex-1"
                aria-label={t("work.part") + of}
                placeholder={t("work.part")}
                maxLength={100}
                value={line.part}
                onChange={(event) => set(i, { part: event.target.value })}
              />
            </div>
          );
        })}
      </div>
    </fieldset>
  );
}
