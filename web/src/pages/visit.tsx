// One visit that is planned or under way, with what its technician tells.
import { useMutation, useQueries, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { carePaths, ticketQuery } from "../api/care";
import { newKey, post, url } from "../api/client";
import type { Ticket, Visit, VisitAction } from "../api/generated";
import { Ask, Field } from "../ui/dialog";
import { Icon, type IconName } from "../ui/icons";
import { Day, Fault, Loading } from "../ui/parts";
import { State } from "../ui/state";
import { useMayAct } from "./ticketactions";
import { useParts } from "./visits";
import { type Line, usual, WorkLines, worksOf } from "./work";

type Action = VisitAction["action"];

const icons: Record<Action, IconName> = { arrive: "sites", done: "ok", cancel: "cross" };

const offered: Record<string, Action[]> = {
  planned: ["arrive", "done", "cancel"],
  "on-site": ["done", "cancel"],
};

export function VisitCard({ visit }: { visit: Visit }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const may = useMayAct();
  const parts = useParts();
  const [asking, ask] = useState<Action>();
  const act = useMutation({
    mutationFn: (body: VisitAction) =>
      post<Visit>(url(carePaths.visitActions, { id: visit.id }), body, newKey()),
    onSuccess: () => ask(undefined),
    onSettled: () => {
      for (const topic of ["visits", "tickets", "care"]) {
        void client.invalidateQueries({ queryKey: [topic] });
      }
    },
  });
  return (
    <li className="border-t border-line py-2 first:border-0 first:pt-0">
      <div className="flex flex-wrap items-baseline gap-x-3">
        <span className="num font-medium">{visit.id}</span>
        <span>{visit.site}</span>
        <Day time={visit.day} />
        <State kind="visit" value={visit.state} className="text-xs" />
        {visit.assignee && <span className="text-soft">{visit.assignee}</span>}
      </div>
      <p className="text-sm">
        {visit.tickets.map((id) => (
          <Link
            key={id}
            to="/tickets/$id"
            params={{ id }}
            className="link inline-block min-h-7 min-w-7 num mr-2"
          >
            {id}
          </Link>
        ))}
        <span className="text-soft">{parts(visit.parts)}</span>
      </p>
      {visit.note && <p className="text-sm text-soft">{visit.note}</p>}
      <div className="mt-1.5 flex flex-wrap gap-2">
        {((may !== false && offered[visit.state]) || []).map((action) => (
          <button
            key={action}
            type="button"
            className="button"
            disabled={!may || act.isPending}
            aria-label={`${t(`visitAct.${action}`)}: ${visit.id}`}
            onClick={() => {
              act.reset();
              if (action === "arrive") act.mutate({ action });
              else ask(action);
            }}
          >
            <Icon name={icons[action]} />
            {t(`visitAct.${action}`)}
          </button>
        ))}
      </div>
      {act.error && !asking && <Fault error={act.error} />}
      {asking === "cancel" && (
        <Ask
          title={t("visitAct.cancelTitle", { id: visit.id, site: visit.site })}
          does={t("visitAct.cancel")}
          icon="cross"
          danger
          busy={act.isPending}
          error={act.error}
          submit={() => act.mutate({ action: "cancel" })}
          close={() => ask(undefined)}
        >
          <p className="text-soft">{t("visitAct.cancelHint", { count: visit.tickets.length })}</p>
        </Ask>
      )}
      {asking === "done" && <Done visit={visit} act={act} close={() => ask(undefined)} />}
    </li>
  );
}

type DoneProps = {
  visit: Visit;
  act: { mutate: (body: VisitAction) => void; isPending: boolean; error: unknown };
  close: () => void;
};

/** Done asks box by box what was done; the boxes are those of the tickets. */
function Done({ visit, act, close }: DoneProps) {
  const tickets = useQueries({ queries: visit.tickets.map((id) => ticketQuery(id)) });
  if (tickets.some((query) => query.isPending)) return <Loading height={60} />;
  const known = tickets.flatMap((query) => (query.data ? [query.data] : []));
  return <DoneForm visit={visit} tickets={known} act={act} close={close} />;
}

/** linesOf offers one line for each box of some tickets. */
export function linesOf(tickets: Ticket[]): Line[] {
  const lines = new Map<string, Line>();
  for (const { box_name: box, cause } of tickets) {
    if (box && !lines.has(box)) lines.set(box, { box, kind: usual[cause] ?? "inspected", part: "" });
  }
  return [...lines.values()];
}

function DoneForm({ visit, tickets, act, close }: DoneProps & { tickets: Ticket[] }) {
  const { t } = useTranslation();
  const [lines, change] = useState(() => linesOf(tickets));
  const [note, setNote] = useState("");
  const [noFault, setNoFault] = useState(false);
  const submit = () => {
    const work = worksOf(lines);
    act.mutate({
      action: "done",
      ...(work.length > 0 && { work }),
      ...(noFault && { no_fault_found: true }),
      ...(note.trim() && { note: note.trim() }),
    });
  };
  return (
    <Ask
      title={t("visitAct.doneTitle", { id: visit.id, site: visit.site })}
      does={t("visitAct.done")}
      icon="ok"
      busy={act.isPending}
      error={act.error}
      submit={submit}
      close={close}
    >
      <p className="text-soft">{t("visitAct.doneHint")}</p>
      {lines.length > 0 && <WorkLines lines={lines} change={change} />}
      <label className="flex min-h-6 items-center gap-2">
        <input type="checkbox" checked={noFault} onChange={(event) => setNoFault(event.target.checked)} />
        {t("ticket.noFault")}
      </label>
      <Field label={t("ticket.note")}>
        <textarea
          rows={2}
          className="input w-full"
          maxLength={2000}
          value={note}
          onChange={(event) => setNote(event.target.value)}
        />
      </Field>
    </Ask>
  );
}
