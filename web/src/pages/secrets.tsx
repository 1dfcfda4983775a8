// Secrets of boxes by name: whom they are for, who has them. Never a value.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Problem } from "../api/client";
import type { Secret, SecretAt } from "../api/generated";
import { can } from "../api/people";
import { sessionQuery, sitesQuery } from "../api/queries";
import {
  at,
  boxNamed,
  bytesOf,
  keyOf,
  removeSecret,
  secretBoxesQuery,
  secretsQuery,
  setSecret,
} from "../api/secrets";
import { Ask, Field } from "../ui/dialog";
import { Icon, type IconName } from "../ui/icons";
import { Ago, Card, Command, Empty, Fault, Loading, Page, Scroll } from "../ui/parts";

type Aim = "box" | "site" | "label";
type Draft = { name: string; aim: Aim; target: string; value: string };

const looks: Record<string, { icon: IconName; colour: string }> = {
  held: { icon: "ok", colour: "text-ok" },
  waiting: { icon: "waiting", colour: "text-warm" },
  sealing: { icon: "waiting", colour: "text-soft" },
};

export function SecretsPage() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const session = useQuery(sessionQuery);
  const list = useQuery(secretsQuery);
  const [draft, setDraft] = useState<Draft>();
  const [renewing, setRenewing] = useState<{ secret: Secret; value: string }>();
  const [removing, setRemoving] = useState<Secret>();
  const done = async () => {
    await client.invalidateQueries({ queryKey: ["secrets"] });
    setDraft(undefined);
    setRenewing(undefined);
    setRemoving(undefined);
  };
  const add = useMutation({
    mutationFn: async (d: Draft) => {
      const target = d.aim === "box" ? await boxNamed(d.target) : d.target;
      if (!target) throw new Problem(-1, t("secrets.noBox"));
      return setSecret({ name: d.name, [d.aim]: target }, d.value);
    },
    onSuccess: done,
  });
  const renew = useMutation({
    mutationFn: (r: { secret: Secret; value: string }) => setSecret(at(r.secret), r.value),
    onSuccess: done,
  });
  const remove = useMutation({ mutationFn: (s: SecretAt) => removeSecret(s), onSuccess: done });
  const may = can(session.data, "secret.set");
  const items = list.data?.items ?? [];
  return (
    <Page
      title={t("secrets.title")}
      aside={
        may && (
          <button
            type="button"
            className="button"
            onClick={() => {
              add.reset();
              setDraft({ name: "", aim: "site", target: "", value: "" });
            }}
          >
            <Icon name="key" />
            {t("secrets.new")}
          </button>
        )
      }
    >
      <Card>
        <p className="max-w-prose px-3 py-2.5 text-soft">{t("secrets.what")}</p>
        {list.error && <Fault error={list.error} retry={() => void list.refetch()} />}
        {list.isPending && <Loading />}
        {list.data && items.length === 0 && (
          <Empty title={t("secrets.none")}>
            <p>{t("secrets.noneHint")}</p>
            <Command>edgeherd secret set camera-dock --box NAME</Command>
          </Empty>
        )}
        {items.length > 0 && (
          <Scroll stack label={t("secrets.title")}>
            <table className="grid-table">
              <thead>
                <tr>
                  <th scope="col">{t("secrets.name")}</th>
                  <th scope="col" className="hidden sm:table-cell">
                    {t("secrets.for")}
                  </th>
                  <th scope="col">{t("secrets.boxes")}</th>
                  <th scope="col" className="hidden sm:table-cell">
                    {t("secrets.changed")}
                  </th>
                  <th scope="col" className="hidden sm:table-cell">
                    {t("secrets.by")}
                  </th>
                  {may && <th scope="col">{t("secrets.actions")}</th>}
                </tr>
              </thead>
              <tbody>
                {items.map((s) => (
                  <Row
                    key={keyOf(s)}
                    secret={s}
                    may={may}
                    renew={() => {
                      renew.reset();
                      setRenewing({ secret: s, value: "" });
                    }}
                    remove={() => {
                      remove.reset();
                      setRemoving(s);
                    }}
                  />
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
      </Card>
      {draft && (
        <Ask
          title={t("secrets.new")}
          does={t("secrets.store")}
          icon="key"
          busy={add.isPending}
          error={add.error}
          submit={() => add.mutate(draft)}
          close={() => setDraft(undefined)}
        >
          <Whom draft={draft} change={(part) => setDraft({ ...draft, ...part })} />
          <Value value={draft.value} change={(value) => setDraft({ ...draft, value })} />
        </Ask>
      )}
      {renewing && (
        <Ask
          title={t("secrets.newValueOf", { name: renewing.secret.name })}
          does={t("secrets.store")}
          icon="key"
          busy={renew.isPending}
          error={renew.error}
          submit={() => renew.mutate(renewing)}
          close={() => setRenewing(undefined)}
        >
          <p>
            <Aimed secret={renewing.secret} />
          </p>
          <Value value={renewing.value} change={(value) => setRenewing({ ...renewing, value })} />
          <p className="text-soft">{t("secrets.newValueHint")}</p>
        </Ask>
      )}
      {removing && (
        <Ask
          title={t("secrets.removeTitle", { name: removing.name })}
          does={t("secrets.remove")}
          danger
          icon="cross"
          busy={remove.isPending}
          error={remove.error}
          submit={() => remove.mutate(removing)}
          close={() => setRemoving(undefined)}
        >
          <p>
            <Aimed secret={removing} />
          </p>
          <p>{t("secrets.removeHint")}</p>
        </Ask>
      )}
    </Page>
  );
}

/** Aimed says for whom a secret is. */
function Aimed({ secret }: { secret: Secret }) {
  const { t } = useTranslation();
  if (secret.box) return <>{t("secrets.ofBox", { name: secret.box_name || secret.box })}</>;
  if (secret.site) return <>{t("secrets.ofSite", { name: secret.site })}</>;
  return <>{t("secrets.ofLabel", { name: secret.label })}</>;
}

type RowProps = { secret: Secret; may: boolean; renew: () => void; remove: () => void };

function Row({ secret, may, renew, remove }: RowProps) {
  const { t } = useTranslation();
  const [open, setOpen] = useState(false);
  const all = secret.boxes > 0 && secret.held === secret.boxes;
  return (
    <>
      <tr>
        <td className="font-semibold">
          <span className="code whitespace-nowrap">{secret.name}</span>
          <span className="block text-xs font-normal text-soft sm:hidden">
            <Aimed secret={secret} />
          </span>
          {secret.lost && <span className="block text-xs font-normal text-hot">{t("secrets.lost")}</span>}
        </td>
        <td className="hidden min-w-32 break-words sm:table-cell">
          <Aimed secret={secret} />
        </td>
        <td className="whitespace-nowrap">
          {secret.boxes === 0 ? (
            <span className="text-soft">{t("secrets.noBoxes")}</span>
          ) : (
            <button
              type="button"
              className={`chip link min-h-6 whitespace-nowrap ${all ? "text-ok" : "text-warm"}`}
              aria-expanded={open}
              onClick={() => setOpen(!open)}
            >
              <Icon name={all ? "ok" : "waiting"} size={14} />
              {t("secrets.have", { held: secret.held, count: secret.boxes })}
              <span className="sr-only"> {t("secrets.showBoxes")}</span>
            </button>
          )}
        </td>
        <td className="hidden sm:table-cell">
          <Ago time={secret.changed} />
        </td>
        <td className="hidden break-words sm:table-cell">{secret.by}</td>
        {may && (
          <td>
            <div className="flex flex-wrap gap-1.5 whitespace-nowrap sm:flex-nowrap">
              <button type="button" className="button" onClick={renew}>
                {t("secrets.newValue")}
                <span className="sr-only"> {secret.name}</span>
              </button>
              <button type="button" className="button" onClick={remove}>
                {t("secrets.remove")}
                <span className="sr-only"> {secret.name}</span>
              </button>
            </div>
          </td>
        )}
      </tr>
      {open && (
        <tr>
          <td colSpan={may ? 6 : 5} className="bg-sunk">
            <Boxes secret={secret} />
          </td>
        </tr>
      )}
    </>
  );
}

/** Boxes are those that are to have a secret, each with whether it does. */
function Boxes({ secret }: { secret: Secret }) {
  const { t } = useTranslation();
  const query = useQuery(secretBoxesQuery(secret));
  if (query.error) return <Fault error={query.error} retry={() => void query.refetch()} />;
  if (!query.data) return <Loading height={40} />;
  return (
    <ul className="flex flex-wrap gap-x-6 gap-y-1.5 py-1">
      {query.data.items.map((b) => {
        const look = looks[b.state] ?? { icon: "unknown" as const, colour: "text-soft" };
        return (
          <li key={b.box}>
            <Link to="/boxes/$id" params={{ id: b.box }} className="link">
              {b.name}
            </Link>{" "}
            <span className={`chip ${look.colour}`}>
              <Icon name={look.icon} size={14} />
              {t(`secrets.state.${b.state}`, { defaultValue: b.state })}
            </span>
          </li>
        );
      })}
    </ul>
  );
}

function Whom({ draft, change }: { draft: Draft; change: (part: Partial<Draft>) => void }) {
  const { t } = useTranslation();
  const sites = useQuery(sitesQuery);
  const names = sites.data?.items.map((s) => s.name).sort() ?? [];
  return (
    <>
      <Field label={t("secrets.name")} hint={t("secrets.nameHint")}>
        <input
          className="input w-full"
          required
          maxLength={63}
          pattern="[a-z0-9][a-z0-9._\-]*"
          autoComplete="off"
          spellCheck={false}
          value={draft.name}
          onChange={(event) => change({ name: event.target.value })}
        />
      </Field>
      <Field label={t("secrets.for")}>
        <select
          className="input w-full"
          value={draft.aim}
          onChange={(event) => change({ aim: event.target.value as Aim, target: "" })}
        >
          <option value="site">{t("secrets.forSite")}</option>
          <option value="box">{t("secrets.forBox")}</option>
          <option value="label">{t("secrets.forLabel")}</option>
        </select>
      </Field>
      <Field
        label={t(`secrets.${draft.aim}`)}
        hint={draft.aim === "label" ? t("secrets.labelHint") : undefined}
      >
        {draft.aim === "site" ? (
          <select
            className="input w-full"
            required
            value={draft.target}
            onChange={(event) => change({ target: event.target.value })}
          >
            <option value="" />
            {names.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        ) : (
          <input
            className="input w-full"
            required
            maxLength={200}
            pattern={draft.aim === "label" ? "[^=]+=.*" : undefined}
            autoComplete="off"
            spellCheck={false}
            value={draft.target}
            onChange={(event) => change({ target: event.target.value })}
          />
        )}
      </Field>
    </>
  );
}

function Value({ value, change }: { value: string; change: (value: string) => void }) {
  const { t } = useTranslation();
  const long = bytesOf(value).length > 1024;
  return (
    <Field label={t("secrets.value")} hint={t("secrets.valueHint")}>
      <input
        type="password"
        className="input w-full"
        required
        autoComplete="new-password"
        value={value}
        ref={(input) => input?.setCustomValidity(long ? t("secrets.tooLong") : "")}
        onChange={(event) => change(event.target.value)}
      />
    </Field>
  );
}
