// What a person may do with a ticket in its state. Only acknowledging happens
// at once; the rest is asked for first, since it sends somebody or ends work.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { carePaths, ticketQuery } from "../api/care";
import { newKey, post, url } from "../api/client";
import type { Ticket, TicketAction } from "../api/generated";
import { can } from "../api/people";
import { sessionQuery } from "../api/queries";
import { Ask, Field } from "../ui/dialog";
import { Icon, type IconName } from "../ui/icons";
import { Fault } from "../ui/parts";
import { type Line, usual, WorkLines, worksOf } from "./work";

type Action = TicketAction["action"];

const icons: Record<Action, IconName> = {
  acknowledge: "check",
  assign: "person",
  arrive: "sites",
  done: "ok",
  reopen: "updating",
  close: "cross",
  note: "draft",
};

/** offered are the actions of each state, the next one first (controller/care has the same table). */
const offered: Record<string, Action[]> = {
  open: ["acknowledge", "assign", "arrive", "done", "close", "note"],
  reopened: ["acknowledge", "assign", "arrive", "done", "close", "note"],
  acknowledged: ["assign", "arrive", "done", "close", "note"],
  dispatched: ["arrive", "done", "assign", "close", "note"],
  "on-site": ["done", "close", "note"],
  done: ["reopen", "close", "note"],
  verified: ["reopen", "note"],
  closed: ["reopen", "note"],
};

export const actionsOf = (state: string): Action[] => offered[state] ?? ["note"];

/** useMayAct tells whether the reader may act on tickets and visits; undefined: not known yet. */
export function useMayAct(): boolean | undefined {
  const session = useQuery(sessionQuery).data;
  return session && can(session, "care.act");
}

/** What a form of an action holds. */
export type Form = {
  assignee: string;
  note: string;
  resolution: string;
  mute: string;
  noFault: boolean;
  lines: Line[];
};

/** bodyOf is what is sent: only what belongs to the action. */
export function bodyOf(action: Action, form: Form): TicketAction {
  const note = form.note.trim();
  const body: TicketAction = { action, ...(note && { note }) };
  if (action === "assign") body.assignee = form.assignee.trim();
  if (action === "done") {
    const work = worksOf(form.lines);
    if (work.length > 0) body.work = work;
    if (form.noFault) body.no_fault_found = true;
  }
  if (action === "close") {
    body.resolution = form.resolution as TicketAction["resolution"];
    const muted = form.resolution === "false-alarm" || form.resolution === "accepted";
    if (muted && form.mute !== "") body.mute_days = Number(form.mute);
  }
  return body;
}

export function TicketActions({ ticket }: { ticket: Ticket }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const may = useMayAct();
  const [asking, ask] = useState<Action>();
  const act = useMutation({
    mutationFn: ({ body, key }: { body: TicketAction; key: string }) =>
      post<Ticket>(url(carePaths.ticketActions, { id: ticket.id }), body, key),
    onSuccess: (after) => {
      client.setQueryData(ticketQuery(ticket.id).queryKey, after);
      ask(undefined);
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["tickets"] }),
  });
  const run = (body: TicketAction) => act.mutate({ body, key: newKey() });
  return (
    <div className="mt-3">
      <div className="flex flex-wrap gap-2">
        {(may === false ? [] : actionsOf(ticket.state)).map((action, i) => (
          <button
            key={action}
            type="button"
            className={`button ${i === 0 && action !== "reopen" ? "primary" : ""}`}
            disabled={!may || act.isPending}
            onClick={() => {
              act.reset();
              if (action === "acknowledge") run({ action });
              else ask(action);
            }}
          >
            <Icon name={icons[action]} />
            {t(`act.${action}`)}
          </button>
        ))}
      </div>
      {may === false && <p className="mt-1.5 text-soft">{t("tickets.readOnly")}</p>}
      {act.error && !asking && <Fault error={act.error} />}
      {asking && (
        <Dialog
          key={asking}
          ticket={ticket}
          action={asking}
          busy={act.isPending}
          error={act.error}
          run={run}
          close={() => ask(undefined)}
        />
      )}
    </div>
  );
}

type DialogProps = {
  ticket: Ticket;
  action: Action;
  busy: boolean;
  error: unknown;
  run: (body: TicketAction) => void;
  close: () => void;
};

function Dialog({ ticket, action, busy, error, run, close }: DialogProps) {
  const { t } = useTranslation();
  const [form, setForm] = useState<Form>({
    assignee: ticket.assignee ?? "",
    note: "",
    resolution: "",
    mute: "90",
    noFault: false,
    lines: ticket.box ? [{ box: "", kind: usual[ticket.cause] ?? "inspected", part: "" }] : [],
  });
  const set = (change: Partial<Form>) => setForm((f) => ({ ...f, ...change }));
  const name = ticket.box_name || ticket.site;
  return (
    <Ask
      title={t(`act.${action}Title`, { name })}
      does={t(`act.${action}`)}
      icon={icons[action]}
      danger={action === "close"}
      busy={busy}
      error={error}
      submit={() => run(bodyOf(action, form))}
      close={close}
    >
      {action !== "note" && <p className="text-soft">{t(`act.${action}Hint`)}</p>}
      {action === "assign" && (
        <Field label={t("ticket.assignee")}>
          <input
            className="input w-full"
            required
            maxLength={200}
            autoComplete="off"
            value={form.assignee}
            onChange={(event) => set({ assignee: event.target.value })}
          />
        </Field>
      )}
      {action === "done" && (
        <>
          {form.lines.length > 0 && <WorkLines lines={form.lines} change={(lines) => set({ lines })} />}
          <label className="flex min-h-6 items-center gap-2">
            <input
              type="checkbox"
              checked={form.noFault}
              onChange={(event) => set({ noFault: event.target.checked })}
            />
            {t("ticket.noFault")}
          </label>
        </>
      )}
      {action === "close" && <Closing form={form} set={set} />}
      <Field label={t("ticket.note")}>
        <textarea
          rows={2}
          className="input w-full"
          maxLength={2000}
          required={action === "note"}
          value={form.note}
          onChange={(event) => set({ note: event.target.value })}
        />
      </Field>
    </Ask>
  );
}

function Closing({ form, set }: { form: Form; set: (change: Partial<Form>) => void }) {
  const { t } = useTranslation();
  const mutes = form.resolution === "false-alarm" || form.resolution === "accepted";
  return (
    <>
      <Field label={t("ticket.resolution")}>
        <select
          className="input w-full"
          required
          value={form.resolution}
          onChange={(event) => set({ resolution: event.target.value })}
        >
          <option value="">{t("act.choose")}</option>
          {["false-alarm", "accepted", "duplicate", "retired"].map((resolution) => (
            <option key={resolution} value={resolution}>
              {t(`resolution.${resolution}`)}
            </option>
          ))}
        </select>
      </Field>
      {mutes && (
        <Field label={t("ticket.mute")} hint={t("ticket.muteHint")}>
          <input
            type="number"
            min="1"
            max="730"
            required
            className="input w-28"
            value={form.mute}
            onChange={(event) => set({ mute: event.target.value })}
          />
        </Field>
      )}
    </>
  );
}
