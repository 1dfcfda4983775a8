// How a box keeps cool: what is wrong and how sure that is, how it developed
// since it was clean, when it may throttle, who looked after it, why it restarted.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import { boxCareQuery } from "../api/care";
import type { Box, BoxCare, Finding, Learning, Reset } from "../api/generated";
import { number, signedPercent } from "../format";
import { Forecast, newest, Sure } from "../ui/forecast";
import { Icon } from "../ui/icons";
import { Card, Clock, Day, Fault, Loading } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { Evidences } from "./evidence";
import { Said } from "./phrase";
import { isDrawn, Resistance } from "./resistance";
import { ended } from "./ticketfilter";
import { UpkeepCard } from "./upkeepcard";

/** HealthCard is how the box keeps cool. */
export function HealthCard({ box }: { box: Box }) {
  const { t } = useTranslation();
  const care = useQuery(boxCareQuery(box.id));
  if (care.data) return <Standing box={box} care={care.data} />;
  return (
    <Card title={t("health.title")}>
      {care.error ? <Fault error={care.error} retry={() => void care.refetch()} /> : <Loading height={220} />}
    </Card>
  );
}

/** CareCards are who looked after the box, and why it restarted. */
export function CareCards({ id }: { id: string }) {
  const care = useQuery(boxCareQuery(id)).data;
  if (!care) return null;
  const closed = care.findings.filter((f) => f.closed);
  return (
    <>
      <UpkeepCard care={care} />
      <Resets resets={care.resets} />
      {closed.length > 0 && <Past findings={closed} />}
    </>
  );
}

function Standing({ box, care }: { box: Box; care: BoxCare }) {
  const { t } = useTranslation();
  const open = care.findings.filter((f) => !f.closed);
  const away = box.link === "silent" || box.link === "never";
  return (
    <Card title={t("health.title")} aside={<State kind="health" value={care.level} old={away} />}>
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3 px-3 pb-3">
        <Level care={care} simulated={box.simulated} />
        {open.length > 0 ? (
          <ul className="grid gap-3">
            {open.map((finding) => (
              <Found key={finding.family} finding={finding} care={care} />
            ))}
          </ul>
        ) : (
          care.thermal.known && (
            <p className="chip text-ok">
              <Icon name="ok" size={14} />
              {t("health.nothing")}
            </p>
          )
        )}
        {isDrawn(care.days) && <Resistance care={care} />}
        {care.forecast && !open.some((f) => f.forecast) && <Forecast forecast={care.forecast} />}
        <Against box={box} care={care} />
      </div>
    </Card>
  );
}

/** Level says how much heat the same work makes, or why that is not known yet. */
export function Level({ care, simulated }: { care: BoxCare; simulated?: boolean }) {
  const { t, i18n } = useTranslation();
  const { thermal } = care;
  if (thermal.known) {
    return (
      <p>
        <strong className="num text-lg">{signedPercent(thermal.resistance_percent, i18n.language)}</strong>{" "}
        {t("health.against")}
        {thermal.sigma_percent !== undefined && (
          <span className="text-soft">
            {" "}
            {t("health.spread", { sigma: number(thermal.sigma_percent, i18n.language, 1) })}
          </span>
        )}
      </p>
    );
  }
  const why = { learning: "learning", idle: "idle", "no-hours": "notJudged", "": "notJudged" }[
    thermal.reason_code ?? ""
  ];
  return (
    <div className="hatched rounded border border-line p-2">
      <div className="rounded bg-card px-2 py-1.5">
        <p className="flex items-center gap-2 font-semibold">
          <Icon name="waiting" />
          {t(`health.${why}`)}
        </p>
        {thermal.learning && <Progress learning={thermal.learning} />}
        <p className="mt-1 text-sm text-soft">{t(`health.${why}Hint`)}</p>
        {simulated && <p className="mt-1 text-xs text-soft">{t("health.simulated")}</p>}
      </div>
    </div>
  );
}

/** Progress is how far the first week is: its days and its steady hours, of which both must be full. */
function Progress({ learning }: { learning: Learning }) {
  const { t } = useTranslation();
  const rows: [string, number, number][] = [
    ["health.learningDay", learning.days, learning.of_days],
    ["health.learningHours", learning.steady_hours, learning.of_hours],
  ];
  return rows.map(([key, have, of]) => (
    <div key={key} className="mt-1.5">
      <span aria-hidden="true" className="block h-2 overflow-hidden rounded bg-line">
        <span className="block h-full bg-accent" style={{ width: `${(100 * Math.min(have, of)) / of}%` }} />
      </span>
      <p className="num text-xs text-soft">{t(key, { day: Math.min(have, of), of })}</p>
    </div>
  ));
}

function Found({ finding, care }: { finding: Finding; care: BoxCare }) {
  const { t } = useTranslation();
  const word = useWord();
  const ticket = care.tickets.find(
    (one) => !ended(one.state) && (one.families.includes(finding.family) || one.cause === finding.cause),
  );
  // A finding keeps the forecast of the day it was opened; the box makes one each day.
  const forecast = finding.forecast && newest(finding.forecast, care.forecast);
  return (
    <li className="border-t border-line pt-2.5">
      <div className="flex flex-wrap items-baseline gap-x-3 gap-y-1">
        <strong>{word("heatCause", finding.cause)}</strong>
        <State kind="health" value={finding.level} className="text-xs" />
        <Sure of={finding.confidence} />
        <span className="text-xs text-soft">
          {t("finding.since")} <Day time={finding.since} />
        </span>
        {finding.muted && <span className="tag">{t("finding.muted")}</span>}
        {ticket && (
          <Link
            to="/tickets/$id"
            params={{ id: ticket.id }}
            className="link inline-block min-h-7 num ml-auto"
          >
            {ticket.id}: {word("ticket", ticket.state)}
          </Link>
        )}
      </div>
      <p className="mb-1">{t(`todo.${finding.cause}`, { defaultValue: "" })}</p>
      <div className="text-sm">
        <Evidences items={finding.evidence} />
      </div>
      {forecast && (
        <div className="mt-2">
          <Forecast forecast={forecast} />
        </div>
      )}
    </li>
  );
}

/** Against says in words what the heat of the box is compared with. */
function Against({ box, care }: { box: Box; care: BoxCare }) {
  const { t, i18n } = useTranslation();
  const { reference } = care.thermal;
  const { cohort } = care;
  const language = i18n.language;
  return (
    <div className="text-xs text-soft">
      {reference && (
        <p>
          <strong className="font-semibold">{t("health.reference")}</strong>{" "}
          {t(`reference.${reference}`, { defaultValue: reference })}
        </p>
      )}
      {cohort && (
        <p className="mt-1">
          <strong className="font-semibold">{t("health.cohort")}</strong>{" "}
          {t("health.cohortIs", {
            count: cohort.boxes,
            sku: cohort.name,
            median: signedPercent(cohort.median_percent, language),
            score: number(Math.abs(cohort.score ?? 0), language, 1),
            side: t((cohort.score ?? 0) >= 0 ? "health.above" : "health.below"),
          })}
        </p>
      )}
      {box.simulated && care.thermal.known && <p className="mt-1">{t("health.simulated")}</p>}
    </div>
  );
}

const resetLooks: Record<string, string> = {
  "thermal-trip": "text-hot",
  watchdog: "text-warm",
  "brown-out": "text-warm",
  "out-of-memory": "text-warm",
  panic: "text-hot",
  "power-cut": "text-warm",
};

function Resets({ resets }: { resets: Reset[] }) {
  const { t } = useTranslation();
  const word = useWord();
  return (
    <Card title={t("resets.title")} aside={t("resets.span")}>
      {resets.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("resets.none")}</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take focus (WCAG 2.1.1)
        <ol className="max-h-80 overflow-y-auto px-3 pb-2" aria-label={t("resets.title")} tabIndex={0}>
          {resets.map((reset) => (
            <li key={reset.time} className="border-t border-line py-1.5 first:border-0 first:pt-0">
              <div className="flex flex-wrap items-baseline justify-between gap-x-3">
                <span className={`font-medium ${resetLooks[reset.cause] ?? ""}`}>
                  {word("reset", reset.cause)}
                </span>
                <span className="text-xs text-soft">
                  <Clock time={reset.time} />
                </span>
              </div>
              {reset.cause !== "clean" && <Sure of={reset.confidence} />}
              {reset.evidence.length > 0 && (
                <details className="text-xs text-soft" open={resets.length === 1}>
                  <summary className="min-h-6 py-0.5">
                    {t("resets.evidence", { count: reset.evidence.length })}
                  </summary>
                  <ul className="list-disc pl-4">
                    {reset.evidence.map((e) => (
                      <li key={e.text}>
                        <Said phrase={e} />
                      </li>
                    ))}
                  </ul>
                </details>
              )}
              {reset.last_record && (
                <p className="text-xs text-soft">
                  {t("resets.last")} <Clock time={reset.last_record} />
                </p>
              )}
            </li>
          ))}
        </ol>
      )}
    </Card>
  );
}

function Past({ findings }: { findings: Finding[] }) {
  const { t } = useTranslation();
  const word = useWord();
  return (
    <Card title={t("finding.past")} aside={t("resets.span")}>
      <ul className="px-3 pb-2">
        {findings.map((f) => (
          <li
            key={`${f.family}/${f.opened}`}
            className="border-t border-line py-1.5 first:border-0 first:pt-0"
          >
            <span className="font-medium">{word("heatCause", f.cause)}</span>{" "}
            <span className="text-xs text-soft">
              <Day time={f.opened} /> – {f.closed && <Day time={f.closed} />}
            </span>
            {f.closed_by && <Said phrase={{ text: f.closed_by }} className="block text-xs text-soft" />}
          </li>
        ))}
      </ul>
    </Card>
  );
}
