/** @jsxImportSource preact */
// What to do about a ticket, and what was done to a box.
import type { Ticket, Work } from "../api/generated";
import { t, word } from "./words";

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

/** those that take a part */
const parted = new Set([
  "filter-installed",
  "fan-replaced",
  "paste-replaced",
  "ssd-replaced",
  "psu-replaced",
]);

/** Done is work on one box: kinds, each with the number of the part that it took. */
export type Done = Record<string, string>;

export const worksOf = (box: string, done: Done): Work[] =>
  workKinds
    .filter((kind) => kind in done)
    .map((kind) => ({ ...(box && { box }), kind, ...(done[kind]?.trim() && { part: done[kind].trim() }) }));

export function TicketCard({ ticket, box }: { ticket: Ticket; box?: boolean }) {
  const todo = word("todo", ticket.cause);
  return (
    <div class="card">
      {box && <strong>{ticket.box_name || t("box.whole", { site: ticket.site })}</strong>}
      <ol>
        {ticket.place && <li>{t("step.find", { place: ticket.place })}</li>}
        {ticket.part && <li>{t("step.take", { part: word("part", ticket.part) })}</li>}
        <li>
          <strong>{todo === ticket.cause ? <span lang="en">{ticket.do}</span> : todo}</strong>
        </li>
        <li>{t("step.tell")}</li>
      </ol>
      {ticket.why && (
        <small>
          {t("why", { why: "" })}
          <span lang="en">{ticket.why}</span>
        </small>
      )}
    </div>
  );
}

type Props = { title: string; done: Done; change: (done: Done) => void };

export function WorkForm({ title, done, change }: Props) {
  const toggle = (kind: string) => {
    const { [kind]: was, ...rest } = done;
    change(was === undefined ? { ...done, [kind]: "" } : rest);
  };
  return (
    <fieldset>
      <legend>{title}</legend>
      {workKinds.map((kind) => (
        <div key={kind}>
          <label class="check">
            <input type="checkbox" checked={kind in done} onChange={() => toggle(kind)} />
            <span>{word("work", kind)}</span>
          </label>
          {kind in done && parted.has(kind) && (
            <input
              aria-label={t("done.partOf", { work: word("work", kind) })}
              placeholder={t("done.part")}
              maxLength={100}
              autoCapitalize="characters"
              value={done[kind] ?? ""}
              onInput={(e) => change({ ...done, [kind]: e.currentTarget.value })}
            />
          )}
        </div>
      ))}
    </fieldset>
  );
}
