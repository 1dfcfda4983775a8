// Users and the tokens of programs: who may come in, as what, and how to keep
// somebody out.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { post, remove, url } from "../api/client";
import type { ApiToken, ApiTokenList, Token, User, UserAction, UserChanged } from "../api/generated";
import { peoplePaths, tokensQuery, usersQuery } from "../api/people";
import { sitesQuery } from "../api/queries";
import { Ask, Field } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Ago, Card, Command, Day, Empty, Fault, Loading, Page, Scroll } from "../ui/parts";

const roles = ["viewer", "tech", "ops", "admin"] as const;
type Role = (typeof roles)[number];

export function PeoplePage() {
  const { t } = useTranslation();
  return (
    <Page title={t("people.title")}>
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        <Users />
        <Tokens />
      </div>
    </Page>
  );
}

/** Sites writes which sites are seen. */
function Sites({ sites }: { sites: string[] }) {
  const { t } = useTranslation();
  return <>{sites.includes("*") ? t("people.allSites") : sites.join(", ")}</>;
}

/** Once shows a secret that is shown once, with nothing else to do than to take it along. */
function Once({
  title,
  text,
  secret,
  close,
}: {
  title: string;
  text: string;
  secret: string;
  close: () => void;
}) {
  const { t } = useTranslation();
  return (
    <div role="status" className="m-3 rounded-md border border-line bg-sunk p-3">
      <p className="flex items-center gap-2 font-semibold">
        <Icon name="key" /> {title}
      </p>
      <p className="mt-1">{text}</p>
      <code className="code mt-2 block break-all rounded bg-card p-2" data-secret="">
        {secret}
      </code>
      <div className="mt-2 flex gap-2">
        <button type="button" className="button" onClick={() => void navigator.clipboard?.writeText(secret)}>
          {t("people.copy")}
        </button>
        <button type="button" className="button" onClick={close}>
          {t("people.noted")}
        </button>
      </div>
    </div>
  );
}

type Draft = { name: string; role: Role; sites: string[] };

/** Standing are the fields of role and sites. */
function Standing({ draft, change }: { draft: Draft; change: (part: Partial<Draft>) => void }) {
  const { t } = useTranslation();
  const sites = useQuery(sitesQuery);
  const all = draft.sites.includes("*");
  const names = [...new Set([...(sites.data?.items.map((s) => s.name) ?? []), ...draft.sites])]
    .filter((name) => name !== "*")
    .sort();
  const toggle = (name: string) =>
    change({
      sites: draft.sites.includes(name)
        ? draft.sites.filter((s) => s !== name)
        : [...draft.sites.filter((s) => s !== "*"), name],
    });
  return (
    <>
      <Field label={t("people.role")} hint={t(`people.roleHint.${draft.role}`)}>
        <select
          className="input w-full"
          value={draft.role}
          onChange={(event) => {
            const role = event.target.value as Role;
            const wide = role === "ops" || role === "admin";
            change({ role, sites: wide ? ["*"] : draft.sites.filter((s) => s !== "*") });
          }}
        >
          {roles.map((role) => (
            <option key={role} value={role}>
              {t(`role.${role}`)}
            </option>
          ))}
        </select>
      </Field>
      <fieldset>
        <legend className="mb-1 font-semibold">{t("people.sites")}</legend>
        <label className="flex min-h-7 items-center gap-2">
          <input type="checkbox" checked={all} onChange={() => change({ sites: all ? [] : ["*"] })} />
          {t("people.allSites")}
        </label>
        {!all && (
          <div className="max-h-40 overflow-y-auto rounded border border-line p-1.5">
            {names.map((name) => (
              <label key={name} className="flex min-h-7 items-center gap-2">
                <input type="checkbox" checked={draft.sites.includes(name)} onChange={() => toggle(name)} />
                {name}
              </label>
            ))}
            {names.length === 0 && <span className="text-soft">{t("people.noSites")}</span>}
          </div>
        )}
      </fieldset>
    </>
  );
}

const fresh = (role: Role): Draft => ({ name: "", role, sites: [] });

function Users() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const users = useQuery(usersQuery);
  const [adding, setAdding] = useState<Draft>();
  const [changing, setChanging] = useState<Draft>();
  const [made, setMade] = useState<UserChanged>();
  const changed = async (u: UserChanged) => {
    await client.invalidateQueries({ queryKey: ["people", "users"] });
    setMade(u.invitation || u.tokens?.length ? u : undefined);
    setAdding(undefined);
    setChanging(undefined);
  };
  const add = useMutation({
    mutationFn: (d: Draft) => post<UserChanged>(peoplePaths.users, d),
    onSuccess: changed,
  });
  const act = useMutation({
    mutationFn: ({ name, ...action }: UserAction & { name: string }) =>
      post<UserChanged>(url(peoplePaths.userActions, { name }), action),
    onSuccess: changed,
  });
  return (
    <Card
      title={t("people.users")}
      aside={
        <button
          type="button"
          className="button"
          onClick={() => {
            add.reset();
            setAdding(fresh("viewer"));
          }}
        >
          <Icon name="person" />
          {t("people.invite")}
        </button>
      }
    >
      {made?.invitation && (
        <Once
          title={t("people.invited", { name: made.user.name })}
          text={t("people.invitedHint")}
          secret={location.origin + made.invitation.path}
          close={() => setMade(undefined)}
        />
      )}
      {made?.tokens && (
        <p role="alert" className="mx-3 mb-3 rounded border border-warm bg-warm-tint p-2">
          {t("people.tokensGoOn", {
            name: made.user.name,
            tokens: made.tokens.map((token) => `${token.name} (${token.id})`).join(", "),
          })}
        </p>
      )}
      {act.error && !changing && <Fault error={act.error} />}
      {users.error && <Fault error={users.error} retry={() => void users.refetch()} />}
      {users.isPending && <Loading />}
      {users.data?.items.length === 0 && (
        <Empty title={t("people.noUsers")}>
          <p>{t("people.noUsersHint")}</p>
          <Command>edgeherd user add anna --role admin</Command>
        </Empty>
      )}
      {users.data && users.data.items.length > 0 && (
        <Scroll stack label={t("people.users")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("people.name")}</th>
                <th scope="col">{t("people.role")}</th>
                <th scope="col">{t("people.sites")}</th>
                <th scope="col">{t("people.state")}</th>
                <th scope="col">{t("people.lastLogin")}</th>
                <th scope="col">{t("people.what")}</th>
              </tr>
            </thead>
            <tbody>
              {users.data.items.map((u) => (
                <UserRow
                  key={u.name}
                  user={u}
                  busy={act.isPending}
                  act={(action) => act.mutate({ name: u.name, action })}
                  change={() => {
                    act.reset();
                    setChanging({ name: u.name, role: u.role as Role, sites: u.sites });
                  }}
                />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {adding && (
        <Ask
          title={t("people.invite")}
          does={t("people.invite")}
          icon="person"
          busy={add.isPending}
          error={add.error}
          submit={() => add.mutate(adding)}
          close={() => setAdding(undefined)}
        >
          <Name draft={adding} change={(part) => setAdding({ ...adding, ...part })} />
          <Standing draft={adding} change={(part) => setAdding({ ...adding, ...part })} />
        </Ask>
      )}
      {changing && (
        <Ask
          title={t("people.changeRole", { name: changing.name })}
          does={t("people.save")}
          busy={act.isPending}
          error={act.error}
          submit={() =>
            act.mutate({ name: changing.name, action: "role", role: changing.role, sites: changing.sites })
          }
          close={() => setChanging(undefined)}
        >
          <Standing draft={changing} change={(part) => setChanging({ ...changing, ...part })} />
        </Ask>
      )}
    </Card>
  );
}

function Name({ draft, change }: { draft: Draft; change: (part: Partial<Draft>) => void }) {
  const { t } = useTranslation();
  return (
    <Field label={t("people.name")} hint={t("signIn.nameHint")}>
      <input
        className="input w-full"
        required
        maxLength={63}
        pattern="[A-Za-z0-9][A-Za-z0-9._@\-]*"
        autoComplete="off"
        spellCheck={false}
        value={draft.name}
        onChange={(event) => change({ name: event.target.value })}
      />
    </Field>
  );
}

type RowProps = {
  user: User;
  busy: boolean;
  act: (action: UserAction["action"]) => void;
  change: () => void;
};

function UserRow({ user, busy, act, change }: RowProps) {
  const { t } = useTranslation();
  const state: ReactNode = user.disabled ? (
    <span className="chip text-hot">
      <Icon name="canceled" size={14} />
      {t("people.disabled")}
    </span>
  ) : user.waiting ? (
    <span className="chip text-warm">
      <Icon name="waiting" size={14} />
      {t("people.waiting")}
    </span>
  ) : (
    <span className="chip text-ok">
      <Icon name="ok" size={14} />
      {t("people.active")}
    </span>
  );
  return (
    <tr>
      <td className="font-semibold whitespace-nowrap">
        {user.name}
        {user.issuer && <span className="block text-xs font-normal text-soft">{user.issuer}</span>}
      </td>
      <td className="whitespace-nowrap">{t(`role.${user.role}`, { defaultValue: user.role })}</td>
      <td className="min-w-32">
        <Sites sites={user.sites} />
      </td>
      <td className="whitespace-nowrap">
        {state}
        {user.sessions > 0 && (
          <span className="ml-2 text-xs text-soft">{t("people.sessions", { count: user.sessions })}</span>
        )}
      </td>
      <td>{user.last_login ? <Ago time={user.last_login} /> : t("people.never")}</td>
      <td>
        <div className="flex flex-wrap gap-1.5 whitespace-nowrap sm:flex-nowrap">
          {!user.issuer && (
            <button type="button" className="button" disabled={busy} onClick={change}>
              {t("people.change")}
              <span className="sr-only"> {user.name}</span>
            </button>
          )}
          {!user.issuer && (
            <button type="button" className="button" disabled={busy} onClick={() => act("reset")}>
              {t("people.reset")}
              <span className="sr-only"> {user.name}</span>
            </button>
          )}
          {user.sessions > 0 && (
            <button type="button" className="button" disabled={busy} onClick={() => act("sign-out")}>
              {t("people.signOut")}
              <span className="sr-only"> {user.name}</span>
            </button>
          )}
          <button
            type="button"
            className="button"
            disabled={busy}
            onClick={() => act(user.disabled ? "enable" : "disable")}
          >
            {user.disabled ? t("people.enable") : t("people.disable")}
            <span className="sr-only"> {user.name}</span>
          </button>
        </div>
      </td>
    </tr>
  );
}

function Tokens() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const tokens = useQuery(tokensQuery);
  const [adding, setAdding] = useState<Draft & { days: string }>();
  const [made, setMade] = useState<Token>();
  const [ending, setEnding] = useState<ApiToken>();
  const again = () => client.invalidateQueries({ queryKey: ["people", "tokens"] });
  const add = useMutation({
    mutationFn: ({ days, ...d }: Draft & { days: string }) =>
      post<Token>(peoplePaths.tokens, { ...d, ttl_seconds: Number(days) * 86400 }),
    onSuccess: async (token) => {
      await again();
      setMade(token);
      setAdding(undefined);
    },
  });
  const end = useMutation({
    mutationFn: (id: string) => remove<ApiTokenList>(url(peoplePaths.token, { id })),
    onSuccess: async () => {
      await again();
      setEnding(undefined);
    },
  });
  return (
    <Card
      title={t("people.tokens")}
      aside={
        <button
          type="button"
          className="button"
          onClick={() => {
            add.reset();
            setAdding({ ...fresh("viewer"), days: "90" });
          }}
        >
          <Icon name="key" />
          {t("people.newToken")}
        </button>
      }
    >
      <p className="px-3 pb-2 text-soft">{t("people.tokensWhat")}</p>
      {made && (
        <Once
          title={t("people.tokenMade", { name: made.name })}
          text={t("people.tokenMadeHint")}
          secret={made.secret}
          close={() => setMade(undefined)}
        />
      )}
      {tokens.error && <Fault error={tokens.error} retry={() => void tokens.refetch()} />}
      {tokens.isPending && <Loading />}
      {tokens.data?.items.length === 0 && <p className="px-3 pb-3 text-soft">{t("people.noTokens")}</p>}
      {tokens.data && tokens.data.items.length > 0 && (
        <Scroll stack label={t("people.tokens")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("people.name")}</th>
                <th scope="col">{t("people.role")}</th>
                <th scope="col">{t("people.sites")}</th>
                <th scope="col">{t("people.scope")}</th>
                <th scope="col">{t("people.ends")}</th>
                <th scope="col">{t("people.used")}</th>
                <th scope="col">{t("people.madeBy")}</th>
                <th scope="col">{t("people.what")}</th>
              </tr>
            </thead>
            <tbody>
              {tokens.data.items.map((token) => (
                <tr key={token.id}>
                  <td className="font-semibold whitespace-nowrap">
                    {token.name}
                    <span className="code ml-2 font-normal text-soft">{token.id}</span>
                  </td>
                  <td className="whitespace-nowrap">
                    {t(`role.${token.role}`, { defaultValue: token.role })}
                  </td>
                  <td className="min-w-32">
                    <Sites sites={token.sites} />
                  </td>
                  <td className="code">{token.scope.join(", ") || t("people.wholeRole")}</td>
                  <td>
                    <Day time={token.expires} />
                  </td>
                  <td>
                    <Ago time={token.used} />
                  </td>
                  <td>{token.made_by}</td>
                  <td>
                    <button
                      type="button"
                      className="button"
                      onClick={() => {
                        end.reset();
                        setEnding(token);
                      }}
                    >
                      {t("people.revoke")}
                      <span className="sr-only">
                        {" "}
                        {token.name} {token.id}
                      </span>
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {adding && (
        <Ask
          title={t("people.newToken")}
          does={t("people.newToken")}
          icon="key"
          busy={add.isPending}
          error={add.error}
          submit={() => add.mutate(adding)}
          close={() => setAdding(undefined)}
        >
          <Name draft={adding} change={(part) => setAdding({ ...adding, ...part })} />
          <Standing draft={adding} change={(part) => setAdding({ ...adding, ...part })} />
          <Field label={t("people.days")}>
            <input
              type="number"
              min="1"
              max="365"
              required
              className="input w-28"
              value={adding.days}
              onChange={(event) => setAdding({ ...adding, days: event.target.value })}
            />
          </Field>
        </Ask>
      )}
      {ending && (
        <Ask
          title={t("people.revokeTitle", { name: ending.name })}
          does={t("people.revoke")}
          danger
          busy={end.isPending}
          error={end.error}
          submit={() => end.mutate(ending.id)}
          close={() => setEnding(undefined)}
        >
          <p>{t("people.revokeHint")}</p>
        </Ask>
      )}
    </Card>
  );
}
