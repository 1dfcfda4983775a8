// Who is told: the endpoints of the configuration with what they want to hear
// and how they do, a test of each, and what the next weekly digest would say.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import { carePaths, careReportQuery } from "../api/care";
import { post } from "../api/client";
import type { CareReport, NotifyState, NotifyTestResult, NotifyTestResults } from "../api/generated";
import { canEverywhere } from "../api/people";
import { sessionQuery } from "../api/queries";
import { number } from "../format";
import { type Language, languages } from "../i18n";
import { Icon } from "../ui/icons";
import { Ago, Card, Command, Empty, Facts, Fault, Loading } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { Said } from "./phrase";

export function NoticesView() {
  const { t } = useTranslation();
  const report = useQuery(careReportQuery);
  const session = useQuery(sessionQuery).data;
  if (!report.data) {
    return (
      <Card title={t("notices.title")}>
        {report.error ? <Fault error={report.error} retry={() => void report.refetch()} /> : <Loading />}
      </Card>
    );
  }
  const names = Object.keys(report.data.notify).sort();
  const may = canEverywhere(session, "site.set");
  return (
    <div className="grid grid-cols-[minmax(0,1fr)] items-start gap-3 xl:grid-cols-2">
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        {names.length === 0 && (
          <Card title={t("notices.title")}>
            <Empty title={t("notices.none")}>
              <p>{t("notices.noneHint")}</p>
              <Command>edgeherd notify test</Command>
            </Empty>
          </Card>
        )}
        {names.map((name) => (
          <Endpoint key={name} name={name} state={report.data.notify[name] as NotifyState} may={may} />
        ))}
        {names.length > 0 && (
          <p className="text-xs text-soft">{t(may ? "notices.where" : "notices.readOnly")}</p>
        )}
      </div>
      <Digest report={report.data} />
    </div>
  );
}

function Endpoint({ name, state, may }: { name: string; state: NotifyState; may: boolean }) {
  const { t, i18n } = useTranslation();
  const client = useQueryClient();
  const test = useMutation({
    mutationFn: () => post<NotifyTestResults>(carePaths.notifyTest, { endpoint: name }),
    onSettled: () => void client.invalidateQueries({ queryKey: ["care", "report"] }),
  });
  const all = (list: string[], none: string) => (list.length === 0 ? none : list.join(", "));
  const items: [string, React.ReactNode][] = [
    [
      t("notices.about"),
      state.about
        .map((what) => t(`notices.abouts.${what.replace(/^rollouts[.]/, "")}`, { defaultValue: what }))
        .join(", "),
    ],
    [t("notices.level"), <State key="level" kind="health" value={state.level} />],
    [t("notices.sites"), all(state.sites, t("notices.allSites"))],
    [t("notices.language"), languages[state.language as Language] ?? state.language],
    [t("notices.quiet"), all(state.quiet, t("notices.never"))],
    [t("notices.digest"), t(state.level === "watch" ? "notices.digestYes" : "notices.digestNo")],
    [t("notices.waiting"), number(state.waiting, i18n.language)],
  ];
  if (state.failed > 0) items.push([t("notices.failed"), number(state.failed, i18n.language)]);
  items.push([t("notices.lastOK"), state.last_ok ? <Ago key="ok" time={state.last_ok} /> : "–"]);
  return (
    <Card title={name} aside={t(`notices.kind.${state.kind}`, { defaultValue: state.kind })}>
      <Facts items={items} />
      {state.last_error && (
        <p className="mx-3 mb-3 break-words rounded border border-warm bg-warm-tint p-2 text-sm" lang="en">
          {state.last_error}
        </p>
      )}
      <div className="flex flex-wrap items-center gap-3 px-3 pb-3">
        {may && (
          <button
            type="button"
            className="button"
            disabled={test.isPending}
            aria-label={`${t("notices.test")}: ${name}`}
            onClick={() => test.mutate()}
          >
            <Icon name="play" />
            {test.isPending ? t("notices.testing") : t("notices.test")}
          </button>
        )}
        <span role="status" className="min-w-0">
          {test.data?.items.map((result) => (
            <Outcome key={result.endpoint} result={result} />
          ))}
        </span>
      </div>
      {test.error && <Fault error={test.error} />}
    </Card>
  );
}

function Outcome({ result }: { result: NotifyTestResult }) {
  const { t } = useTranslation();
  if (result.ok) {
    return (
      <span className="chip text-ok">
        <Icon name="ok" size={14} />
        {t("notices.told")}
      </span>
    );
  }
  return (
    <span className="text-hot">
      <span className="chip">
        <Icon name="failed" size={14} />
        {t("notices.notTold")}
      </span>{" "}
      <span className="break-words text-text" lang="en">
        {result.error}
      </span>
    </span>
  );
}

/** Digest is what is only watched: nothing to do yet, told once a week. */
function Digest({ report }: { report: CareReport }) {
  const { t } = useTranslation();
  const word = useWord();
  return (
    <Card title={t("notices.digestTitle")} aside={t("notices.digestWhen")}>
      {report.watch.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("notices.digestEmpty")}</p>
      ) : (
        <ul className="px-3 pb-2">
          {report.watch.map((finding) => (
            <li
              key={`${finding.box}/${finding.family}`}
              className="border-t border-line py-1.5 first:border-0 first:pt-0"
            >
              <span className="flex flex-wrap items-baseline gap-x-3">
                {finding.box ? (
                  <Link
                    to="/boxes/$id"
                    params={{ id: finding.box }}
                    className="link inline-block min-h-7 font-medium"
                  >
                    {finding.box_name || finding.box}
                  </Link>
                ) : (
                  finding.site
                )}
                <span className="text-soft">{finding.site}</span>
                <span>{word("heatCause", finding.cause)}</span>
              </span>
              {finding.evidence[0] && (
                <Said phrase={finding.evidence[0]} className="block text-xs text-soft" />
              )}
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}
