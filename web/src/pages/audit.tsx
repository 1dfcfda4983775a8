// The audit log: who did what, and whether the chain of records holds.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import type { AuditRestore, AuditState, AuditWitness } from "../api/generated";
import { auditQuery, auditStateQuery, can, peoplePaths } from "../api/people";
import { sessionQuery } from "../api/queries";
import { stamp } from "../format";
import { Icon } from "../ui/icons";
import { Ago, Card, Fault, Loading, Page, Scroll } from "../ui/parts";
import { usePrefs } from "../ui/prefs";

export function AuditPage() {
  const { t, i18n } = useTranslation();
  const { zone } = usePrefs();
  const { actor = "" } = useSearch({ from: "/audit" });
  const navigate = useNavigate();
  const session = useQuery(sessionQuery);
  const log = useInfiniteQuery(auditQuery(actor));
  const all = can(session.data, "audit.read-all");
  const state = useQuery({ ...auditStateQuery, enabled: all });
  const records = log.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Page
      title={t("auditLog.title")}
      aside={
        can(session.data, "audit.export") && (
          <a className="link" href={peoplePaths.auditExport} download="audit.jsonl">
            {t("auditLog.export")}
          </a>
        )
      }
    >
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        {state.error && <Fault error={state.error} />}
        {state.data && (
          <>
            <Chain state={state.data} />
            <Restores of={state.data.restores ?? []} />
            <Doubtful kind="forged" heads={state.data.forged ?? []} />
            <Doubtful kind="unjudged" heads={state.data.unjudged ?? []} />
          </>
        )}
        {session.data && !all && <p className="text-soft">{t("auditLog.own")}</p>}
        <Card
          title={actor ? t("auditLog.by", { name: actor }) : t("auditLog.records")}
          aside={
            actor && (
              <button
                type="button"
                className="link"
                onClick={() => void navigate({ to: "/audit", search: {} })}
              >
                {t("auditLog.everybody")}
              </button>
            )
          }
        >
          {log.error && <Fault error={log.error} retry={() => void log.refetch()} />}
          {log.isPending && <Loading />}
          {log.data && records.length === 0 && <p className="px-3 pb-3 text-soft">{t("auditLog.empty")}</p>}
          {records.length > 0 && (
            <Scroll stack label={t("auditLog.records")}>
              <table className="grid-table">
                <thead>
                  <tr>
                    <th scope="col">{t("auditLog.number")}</th>
                    <th scope="col">{t("auditLog.time")}</th>
                    <th scope="col">{t("auditLog.actor")}</th>
                    <th scope="col">{t("auditLog.verb")}</th>
                    <th scope="col">{t("auditLog.object")}</th>
                    <th scope="col">{t("auditLog.note")}</th>
                    <th scope="col">{t("auditLog.source")}</th>
                  </tr>
                </thead>
                <tbody>
                  {records.map((r) => (
                    <tr key={r.seq}>
                      <td className="num">{r.seq}</td>
                      <td className="whitespace-nowrap">{stamp(r.time, i18n.language, zone)}</td>
                      <td>
                        <button
                          type="button"
                          className="link"
                          onClick={() => void navigate({ to: "/audit", search: { actor: r.actor } })}
                        >
                          {r.actor}
                        </button>
                        {r.role && (
                          <span className="ml-1 text-xs text-soft">
                            {t(`role.${r.role}`, { defaultValue: r.role })}
                          </span>
                        )}
                      </td>
                      <td className="code whitespace-nowrap">{r.verb}</td>
                      <td className="break-words">{r.object || "–"}</td>
                      <td lang="en" className="max-w-md break-words">
                        {r.note || "–"}
                      </td>
                      <td className="code whitespace-nowrap text-soft">{r.source}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroll>
          )}
          {log.hasNextPage && (
            <div className="p-3 text-center">
              <button
                type="button"
                className="button"
                disabled={log.isFetchingNextPage}
                onClick={() => void log.fetchNextPage()}
              >
                {t("auditLog.more")}
              </button>
            </div>
          )}
        </Card>
      </div>
    </Page>
  );
}

/** Chain says whether any record was changed, and by what that is known. */
function Chain({ state }: { state: AuditState }) {
  const { t } = useTranslation();
  if (state.broken) {
    return (
      <div role="alert" className="rounded-md border border-hot bg-hot-tint p-3">
        <p className="flex items-center gap-2 font-semibold text-hot">
          <Icon name="fault" /> {t("auditLog.broken", { seq: state.broken_seq ?? 0 })}
        </p>
        <p className="mt-1" lang="en">
          {state.broken}
        </p>
        <p className="mt-1">{t("auditLog.brokenHint")}</p>
        <Heads kind="contradicted" heads={state.contradicted ?? []} />
      </div>
    );
  }
  return (
    <div className="card p-3">
      <p className="flex items-center gap-2 font-semibold text-ok">
        <Icon name="ok" /> {t("auditLog.holds", { count: state.records })}
      </p>
      <p className="mt-1 text-soft">
        {t("auditLog.head")} <code className="code break-all">{state.head}</code>
      </p>
      {state.sealed && (
        <p className="mt-1 text-soft">
          {t("auditLog.sealed", { count: state.seals })} <Ago time={state.sealed} />
        </p>
      )}
      {state.witnesses > 0 && (
        <p className="mt-1 text-soft">
          {t("auditLog.witnesses", { count: state.witnesses, seq: state.witnessed ?? 0 })}
        </p>
      )}
    </div>
  );
}

/** Restores tells when the database came from a backup, and what that lost. */
function Restores({ of }: { of: AuditRestore[] }) {
  const { t } = useTranslation();
  if (of.length === 0) return null;
  return (
    <div className="rounded-md border border-warm bg-warm-tint p-3">
      {of.map((r) => (
        <div key={r.seq} className="mb-1 flex gap-2">
          <span className="mt-1 shrink-0">
            <Icon name="throttling" />
          </span>
          <p>
            {t("auditLog.restored", { seq: r.seq })} <Ago time={r.time} />
            {(r.lost ?? 0) >= r.seq && (
              <strong className="block">{t("auditLog.lost", { from: r.seq, to: r.lost })}</strong>
            )}
          </p>
        </div>
      ))}
      <p className="text-soft">{t("auditLog.restoredHint")}</p>
    </div>
  );
}

/** Doubtful shows boxes that have seen what the log does not hold, and cannot be blamed for. */
function Doubtful({ kind, heads }: { kind: "forged" | "unjudged"; heads: AuditWitness[] }) {
  const { t } = useTranslation();
  if (heads.length === 0) return null;
  return (
    <div role="alert" className="rounded-md border border-warm bg-warm-tint p-3">
      <Heads kind={kind} heads={heads} />
      <p className="mt-1">{t(`auditLog.${kind}Hint`)}</p>
    </div>
  );
}

/** Heads are records as boxes have seen them. */
function Heads({ kind, heads }: { kind: "forged" | "unjudged" | "contradicted"; heads: AuditWitness[] }) {
  const { t } = useTranslation();
  if (heads.length === 0) return null;
  return (
    <>
      <p className="flex items-center gap-2 font-semibold">
        <Icon name="throttling" /> {t(`auditLog.${kind}`, { count: new Set(heads.map((h) => h.box)).size })}
      </p>
      <ul className="mt-1">
        {heads.map((h) => (
          <li key={`${h.box} ${h.seq} ${h.hash}`}>
            <Link to="/boxes/$id" params={{ id: h.box }} className="link">
              {h.name}
            </Link>{" "}
            {t("auditLog.says", { seq: h.seq })} <Ago time={h.told} />{" "}
            <code className="code break-all text-soft">{h.hash}</code>
          </li>
        ))}
      </ul>
    </>
  );
}
