// Parts that go back to their vendors (RMA): opened when a part comes out of a
// box, then shipped, received, and closed with what came back for it.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { carePaths, rmasQuery } from "../api/care";
import { newKey, post, url } from "../api/client";
import type { NewRma, Rma, RmaAction } from "../api/generated";
import { Ask, Field } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Card, Day, Empty, Fault, Loading } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { useMayAct } from "./ticketactions";

type Action = RmaAction["action"];

/** nextOf is what can be said of an RMA in its state, the usual next first. */
export const nextOf = (state: string): Action[] =>
  (({ open: ["shipped", "close"], shipped: ["received", "close"], received: ["close"] })[
    state
  ] as Action[]) ?? [];

function useSend<T>(path: string, done: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: T) => post<Rma>(path, body, newKey()),
    onSuccess: done,
    onSettled: () => void client.invalidateQueries({ queryKey: ["care", "rmas"] }),
  });
}

export function Returns() {
  const { t } = useTranslation();
  const rmas = useQuery(rmasQuery);
  const may = useMayAct();
  const [opening, open] = useState(false);
  const items = rmas.data?.items ?? [];
  return (
    <Card title={t("rma.title")} aside={t("rma.aside")}>
      {rmas.error && !rmas.data ? (
        <Fault error={rmas.error} retry={() => void rmas.refetch()} />
      ) : !rmas.data ? (
        <Loading />
      ) : items.length === 0 ? (
        <Empty title={t("rma.none")}>{t("rma.noneHint")}</Empty>
      ) : (
        <ul className="px-3">
          {items.map((rma) => (
            <Return key={rma.id} rma={rma} />
          ))}
        </ul>
      )}
      <div className="px-3 pt-1 pb-3">
        {may !== false && (
          <button type="button" className="button" disabled={!may} onClick={() => open(true)}>
            <Icon name="models" />
            {t("rma.new")}
          </button>
        )}
        {may === false && <p className="text-soft">{t("tickets.readOnly")}</p>}
      </div>
      {opening && <Open close={() => open(false)} />}
    </Card>
  );
}

function Return({ rma }: { rma: Rma }) {
  const { t } = useTranslation();
  const word = useWord();
  const may = useMayAct();
  const [asking, ask] = useState<Action>();
  const times: [string, string | undefined][] = [
    ["opened", rma.opened],
    ["shipped", rma.shipped],
    ["received", rma.received],
    ["closed", rma.closed],
  ];
  return (
    <li className="border-t border-line py-2 first:border-0 first:pt-0">
      <div className="flex flex-wrap items-baseline gap-x-3">
        <span className="num font-medium">{rma.id}</span>
        <span>
          {word("part", rma.part)} {rma.serial && <span className="num text-soft">{rma.serial}</span>}
        </span>
        <State kind="rma" value={rma.state} className="text-xs" />
      </div>
      <p className="text-sm">
        {rma.box && (
          <Link to="/boxes/$id" params={{ id: rma.box }} className="link mr-2 inline-block min-h-7">
            {rma.box_name || rma.box}
          </Link>
        )}
        {rma.ticket && (
          <Link
            to="/tickets/$id"
            params={{ id: rma.ticket }}
            className="link num mr-2 inline-block min-h-7 min-w-7"
          >
            {rma.ticket}
          </Link>
        )}
        <span className="text-soft">
          {[rma.vendor, rma.vendor_number, rma.credit, rma.note].filter(Boolean).join(" · ")}
        </span>
      </p>
      <p className="flex flex-wrap gap-x-3 text-xs text-soft">
        {times.map(
          ([name, time]) =>
            time && (
              <span key={name}>
                {t(`rma.at.${name}`)} <Day time={time} />
              </span>
            ),
        )}
      </p>
      <div className="mt-1.5 flex flex-wrap gap-2">
        {(may === false ? [] : nextOf(rma.state)).map((action) => (
          <button
            key={action}
            type="button"
            className="button"
            disabled={!may}
            aria-label={`${t(`rmaAct.${action}`)}: ${rma.id}`}
            onClick={() => ask(action)}
          >
            {t(`rmaAct.${action}`)}
          </button>
        ))}
      </div>
      {asking && <Act rma={rma} action={asking} close={() => ask(undefined)} />}
    </li>
  );
}

function Act({ rma, action, close }: { rma: Rma; action: Action; close: () => void }) {
  const { t } = useTranslation();
  const [number, setNumber] = useState(rma.vendor_number ?? "");
  const [credit, setCredit] = useState("");
  const [note, setNote] = useState("");
  const send = useSend<RmaAction>(url(carePaths.rmaActions, { id: rma.id }), close);
  return (
    <Ask
      title={`${rma.id}: ${t(`rmaAct.${action}`)}`}
      does={t(`rmaAct.${action}`)}
      busy={send.isPending}
      error={send.error}
      submit={() =>
        send.mutate({
          action,
          ...filled({ vendor_number: number, note, ...(action === "close" && { credit }) }),
        })
      }
      close={close}
    >
      {action === "close" ? (
        <Text label={t("rma.credit")} hint={t("rma.creditHint")} value={credit} set={setCredit} max={100} />
      ) : (
        <Text label={t("rma.number")} value={number} set={setNumber} max={100} />
      )}
      <Text label={t("ticket.note")} value={note} set={setNote} max={2000} />
    </Ask>
  );
}

function Open({ close }: { close: () => void }) {
  const { t } = useTranslation();
  const word = useWord();
  const [form, set] = useState({ part: "fan", box: "", serial: "", vendor: "", vendor_number: "", note: "" });
  const send = useSend<NewRma>(carePaths.rmas, close);
  const text = (key: keyof typeof form, label: string, hint?: string) => (
    <Text
      label={label}
      hint={hint}
      value={form[key]}
      set={(value) => set({ ...form, [key]: value })}
      max={100}
    />
  );
  return (
    <Ask
      title={t("rma.new")}
      does={t("rma.new")}
      icon="models"
      busy={send.isPending}
      error={send.error}
      submit={() => {
        const { part, ...rest } = form;
        send.mutate({ part, ...filled(rest) });
      }}
      close={close}
    >
      <Field label={t("spares.part")}>
        <select
          className="input w-full"
          value={form.part}
          onChange={(event) => set({ ...form, part: event.target.value })}
        >
          {["fan", "filter", "ssd", "psu", "box"].map((part) => (
            <option key={part} value={part}>
              {word("part", part)}
            </option>
          ))}
        </select>
      </Field>
      {text("box", t("box.title"), t("rma.boxHint"))}
      {text("serial", t("box.serial"))}
      {text("vendor", t("rma.vendor"))}
      {text("vendor_number", t("rma.number"))}
    </Ask>
  );
}

/** filled leaves out what was not filled in. */
export const filled = <T extends Record<string, string>>(form: T): Partial<T> =>
  Object.fromEntries(
    Object.entries(form)
      .map(([key, value]) => [key, value.trim()])
      .filter(([, value]) => value),
  ) as Partial<T>;

type TextProps = { label: string; hint?: string; value: string; set: (value: string) => void; max: number };

function Text({ label, hint, value, set, max }: TextProps) {
  return (
    <Field label={label} hint={hint}>
      <input
        className="input w-full"
        autoComplete="off"
        maxLength={max}
        value={value}
        onChange={(event) => set(event.target.value)}
      />
    </Field>
  );
}
