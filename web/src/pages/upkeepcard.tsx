// Where a box stands, which filter it has and when that is due, and the last
// work on it.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { boxCareQuery, carePaths } from "../api/care";
import { newKey, post, url } from "../api/client";
import type { BoxCare, Upkeep } from "../api/generated";
import { now } from "../api/now";
import { number, signedPercent } from "../format";
import { Ask, Field } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Card, Day, Facts } from "../ui/parts";
import { useWord } from "../ui/state";
import { useMayAct } from "./ticketactions";

export function UpkeepCard({ care }: { care: BoxCare }) {
  const { t, i18n } = useTranslation();
  const may = useMayAct();
  const [editing, edit] = useState(false);
  const { upkeep, filter } = care;
  const late = filter.due !== undefined && Date.parse(filter.due) < now();
  const none = <span className="text-soft">{t("box.unknown")}</span>;
  return (
    <Card title={t("upkeep.title")}>
      <Facts
        items={[
          [t("ticket.place"), upkeep.place || none],
          [
            t("upkeep.filter"),
            upkeep.filter_part || upkeep.filter_installed ? (
              <>
                {upkeep.filter_part} {upkeep.filter_installed && <Day time={upkeep.filter_installed} />}
              </>
            ) : (
              none
            ),
          ],
          [
            t("upkeep.due"),
            filter.due ? (
              <span className={late ? "text-warm" : ""}>
                <Day time={filter.due} />
                {late && ` (${t("upkeep.late")})`}
              </span>
            ) : (
              none
            ),
          ],
          [
            t("upkeep.interval"),
            <>
              {t("count.days", {
                count: Math.round(filter.interval_days),
                shown: number(filter.interval_days, i18n.language),
              })}
              <span className="block text-xs text-soft">
                {t(filter.learnt ? "upkeep.learnt" : "upkeep.byClass")}
              </span>
            </>,
          ],
          ...(upkeep.serial ? [[t("box.serial"), upkeep.serial] as [string, string]] : []),
          ...(upkeep.note ? [[t("ticket.note"), upkeep.note] as [string, string]] : []),
        ]}
      />
      {care.photo && (
        <figure className="px-3 pb-2">
          <img
            src={`${url(carePaths.photo, { id: care.box })}?of=${care.photo}`}
            alt={t("upkeep.photo", { name: care.name })}
            loading="lazy"
            className="max-h-64 max-w-full rounded-md"
          />
          <figcaption className="text-xs text-soft">
            <Day time={care.photo} />
          </figcaption>
        </figure>
      )}
      <Worked care={care} />
      {may !== false && (
        <div className="px-3 pb-3">
          <button type="button" className="button" disabled={!may} onClick={() => edit(true)}>
            <Icon name="draft" />
            {t("upkeep.change")}
          </button>
        </div>
      )}
      {editing && <Form care={care} close={() => edit(false)} />}
    </Card>
  );
}

/** Worked lists what was done to the box and what it showed by itself, the newest first. */
function Worked({ care }: { care: BoxCare }) {
  const { t, i18n } = useTranslation();
  const word = useWord();
  const say = (value: number) => signedPercent(value, i18n.language);
  const rows = [
    ...care.changes.map((c) => ({
      time: c.time,
      what: word("work", c.kind),
      text: [c.detail, c.by].filter(Boolean).join(", "),
    })),
    ...care.cleanings.map((c) => ({
      time: c.time,
      what: t(c.logged ? "upkeep.cleaned" : "upkeep.cleanedUnsaid"),
      text: `${say(c.before_percent)} → ${say(c.after_percent)}`,
    })),
  ].sort((a, b) => b.time.localeCompare(a.time));
  if (rows.length === 0) return <p className="px-3 pb-2 text-xs text-soft">{t("upkeep.noWork")}</p>;
  return (
    <div className="px-3 pb-2">
      <h3 className="text-xs font-semibold">{t("upkeep.work")}</h3>
      <ul className="text-sm">
        {rows.slice(0, 8).map((row) => (
          <li key={`${row.time}/${row.what}/${row.text}`} className="flex flex-wrap gap-x-2">
            <span className="text-soft">
              <Day time={row.time} />
            </span>
            <span className="min-w-0">
              {row.what} {row.text && <span className="text-soft">{row.text}</span>}
            </span>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** installedAt keeps the moment that is known of an unchanged day: another moment would be another filter. */
export const installedAt = (day: string, known: string | undefined): string =>
  known?.slice(0, 10) === day ? known : `${day}T00:00:00Z`;

function Form({ care, close }: { care: BoxCare; close: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const { upkeep } = care;
  const [place, setPlace] = useState(upkeep.place ?? "");
  const [part, setPart] = useState(upkeep.filter_part ?? "");
  const [installed, setInstalled] = useState(upkeep.filter_installed?.slice(0, 10) ?? "");
  const [note, setNote] = useState(upkeep.note ?? "");
  const save = useMutation({
    mutationFn: () => {
      const body: Upkeep = {
        ...(upkeep.serial && { serial: upkeep.serial }),
        ...(place.trim() && { place: place.trim() }),
        ...(part.trim() && { filter_part: part.trim() }),
        ...(installed && { filter_installed: installedAt(installed, upkeep.filter_installed) }),
        ...(note.trim() && { note: note.trim() }),
      };
      return post<BoxCare>(url(carePaths.box, { id: care.box }), body, newKey());
    },
    onSuccess: (after) => {
      client.setQueryData(boxCareQuery(care.box).queryKey, after);
      close();
    },
  });
  const text = (value: string, set: (value: string) => void, most: number) => ({
    className: "input w-full",
    maxLength: most,
    value,
    onChange: (event: { target: { value: string } }) => set(event.target.value),
  });
  return (
    <Ask
      title={t("upkeep.changeTitle", { name: care.name })}
      does={t("sites.save")}
      busy={save.isPending}
      error={save.error}
      submit={() => save.mutate()}
      close={close}
    >
      <Field label={t("ticket.place")} hint={t("upkeep.placeHint")}>
        <input {...text(place, setPlace, 200)} />
      </Field>
      <Field label={t("upkeep.filterPart")}>
        <input {...text(part, setPart, 100)} />
      </Field>
      <Field label={t("upkeep.filterInstalled")}>
        <input
          type="date"
          className="input"
          value={installed}
          onChange={(event) => setInstalled(event.target.value)}
        />
      </Field>
      <Field label={t("ticket.note")}>
        <textarea rows={2} {...text(note, setNote, 2000)} />
      </Field>
    </Ask>
  );
}
