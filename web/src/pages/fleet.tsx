// Fleet: how many boxes are in which state, where they are, and each of them.
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { type FormEvent, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Problem } from "../api/client";
import type { Summary } from "../api/generated";
import { boxMapQuery, mapLimit, summaryQuery } from "../api/queries";
import { number } from "../format";
import { HostMapView } from "../hostmap/HostMapView";
import { fillOf, fills } from "../hostmap/ramp";
import { Icon } from "../ui/icons";
import { Card, Command, Empty, Fault, Loading, Page } from "../ui/parts";
import { type Kind, lookOf } from "../ui/state";
import { BoxTable } from "./boxtable";
import { CareCounts } from "./carecounts";
import { Told } from "./phrase";

const route = getRouteApi("/");

export function FleetPage() {
  const { t } = useTranslation();
  const summary = useQuery(summaryQuery);
  const title = t("fleet.title");
  if (summary.error && !summary.data) {
    return (
      <Page title={title}>
        <Fault error={summary.error} retry={() => void summary.refetch()} />
      </Page>
    );
  }
  if (!summary.data) {
    return (
      <Page title={title}>
        <Loading height={400} />
      </Page>
    );
  }
  const { total, simulated } = summary.data;
  return (
    <Page
      title={title}
      aside={
        <>
          {t("count.boxes", { count: total })}
          {simulated > 0 && <span className="tag ml-2">{t("fleet.simulated", { count: simulated })}</span>}
        </>
      }
    >
      {summary.error && <Fault error={summary.error} retry={() => void summary.refetch()} />}
      {summary.data.trouble && (
        <p role="alert" className="card mb-3 flex flex-wrap items-center gap-x-2 px-3 py-2 text-hot">
          <Icon name="fault" size={14} /> <strong>{t("trouble.storage")}</strong>{" "}
          <Told text={summary.data.trouble} said={summary.data.trouble_said} />
        </p>
      )}
      {total === 0 ? <NoBoxes /> : <Fleet summary={summary.data} />}
    </Page>
  );
}

function NoBoxes() {
  const { t } = useTranslation();
  return (
    <Card>
      <Empty title={t("fleet.empty")}>
        <p>{t("fleet.emptyReal")}</p>
        <Command>edgeherd enroll token --site site-1</Command>
        <p className="mt-3">{t("fleet.emptyDemo")}</p>
        <Command>edgeherd up</Command>
      </Empty>
    </Card>
  );
}

function Fleet({ summary }: { summary: Summary }) {
  const { q = "" } = route.useSearch();
  return (
    <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
      <Counts summary={summary} />
      <FilterBar key={q} />
      <CareCounts />
      <MapCard />
      <BoxTable />
    </div>
  );
}

type Count = { kind: Kind; value: string; filter: string; count: number; always: boolean };

/** countsOf lists the cards: those worth a place at all times, others when not zero. */
export function countsOf(summary: Summary): Count[] {
  const card = (kind: Kind, value: string, count: number | undefined, always: boolean): Count => ({
    kind,
    value,
    filter: `${kind} = "${value}"`,
    count: count ?? 0,
    always,
  });
  const { healths, links, updates } = summary;
  return [
    card("health", "healthy", healths.healthy, true),
    card("health", "watch", healths.watch, false),
    card("health", "ticket", healths.ticket, true),
    card("health", "urgent", healths.urgent, true),
    card("link", "late", links.late, false),
    card("link", "silent", links.silent, true),
    card("link", "never", links.never, false),
    card("update", "updating", updates.updating, true),
    card("update", "failed", updates.failed, true),
    card("update", "awaiting_reconnect", updates.awaiting_reconnect, false),
    card("update", "conflict_paused", updates.conflict_paused, false),
  ].filter((c) => c.always || c.count > 0);
}

function Counts({ summary }: { summary: Summary }) {
  const { t, i18n } = useTranslation();
  const { q } = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <ul className="grid grid-cols-2 gap-2 sm:grid-cols-3 lg:grid-cols-[repeat(auto-fit,minmax(7.5rem,1fr))]">
      {countsOf(summary).map((c) => {
        const look = lookOf(c.kind, c.value);
        const on = q === c.filter;
        return (
          <li key={c.filter}>
            <button
              type="button"
              aria-pressed={on}
              onClick={() => void navigate({ search: (s) => ({ ...s, q: on ? undefined : c.filter }) })}
              className={`card flex h-full w-full items-baseline justify-between gap-x-2 px-3 py-1.5 text-left sm:block sm:py-2 hover:border-edge ${on ? "outline-2 outline-accent" : ""}`}
            >
              <span className={`chip text-xs whitespace-normal! ${c.count > 0 ? look.colour : "text-soft"}`}>
                <Icon name={look.icon} size={14} />
                {t(`card.${c.kind}.${c.value}`)}
              </span>
              <span
                className={`num block text-xl leading-tight sm:text-2xl ${c.count > 0 ? "" : "text-soft"}`}
              >
                {number(c.count, i18n.language)}
              </span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

function FilterBar() {
  const { t } = useTranslation();
  const { q = "" } = route.useSearch();
  const navigate = route.useNavigate();
  const [text, setText] = useState(q);
  const check = useQuery({ ...boxMapQuery(q), enabled: q !== "" });
  const fault = check.error instanceof Problem && check.error.status === 400 ? check.error : undefined;
  const go = (filter: string) => void navigate({ search: (s) => ({ ...s, q: filter.trim() || undefined }) });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    go(text);
  };
  return (
    <search>
      <form onSubmit={submit}>
        <div className="flex flex-wrap gap-2">
          <input
            type="search"
            value={text}
            onChange={(event) => setText(event.target.value)}
            aria-label={t("filter.label")}
            aria-describedby="filter-help"
            aria-invalid={fault ? true : undefined}
            placeholder={t("filter.placeholder")}
            spellCheck={false}
            autoComplete="off"
            className="code card min-h-9 min-w-0 flex-1 border-edge! px-3"
          />
          <button type="submit" className="button">
            {t("filter.apply")}
          </button>
          {q && (
            <button type="button" className="button" onClick={() => go("")}>
              {t("filter.clear")}
            </button>
          )}
        </div>
        {fault && (
          <p role="alert" className="mt-1 text-hot" lang="en">
            {fault.message}
          </p>
        )}
        <details className="mt-1 text-xs text-soft">
          <summary className="w-fit py-1">{t("filter.help")}</summary>
          <div id="filter-help" className="mt-1">
            <p>
              {t("filter.fields")}{" "}
              <span className="code">
                name site link health update temp_die resistance cause class arch agent simulated model
              </span>
            </p>
            <p className="code mt-1">
              health = "ticket" AND temp_die &gt; 85 AND NOT site = "berlin-1"
              <br />
              model:"ocr-rec" OR simulated = "true"
            </p>
          </div>
        </details>
      </form>
    </search>
  );
}

function MapCard() {
  const { t, i18n } = useTranslation();
  const { q = "", fill } = route.useSearch();
  const all = useQuery({ ...boxMapQuery(""), placeholderData: keepPreviousData });
  const some = useQuery({ ...boxMapQuery(q), enabled: q !== "" });
  const matching = useMemo(
    () => (q && some.data ? new Set(some.data.items.map((box) => box.id)) : undefined),
    [q, some.data],
  );
  if (all.error && !all.data) {
    return (
      <Card>
        <Fault error={all.error} retry={() => void all.refetch()} />
      </Card>
    );
  }
  return (
    <Card
      title={t("map.title")}
      aside={
        all.data && all.data.total > all.data.items.length
          ? t("map.cut", {
              shown: number(mapLimit, i18n.language),
              total: number(all.data.total, i18n.language),
            })
          : matching && t("map.matching", { count: matching.size })
      }
    >
      <FillChoice />
      {all.data ? (
        <HostMapView boxes={all.data.items} matching={matching} fill={fillOf(fill)} />
      ) : (
        <Loading height={220} />
      )}
    </Card>
  );
}

/** FillChoice says what the colour of the map is about; the address holds it. */
function FillChoice() {
  const { t } = useTranslation();
  const { fill } = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <fieldset className="flex flex-wrap gap-1 px-3 pb-2 text-xs">
      <legend className="sr-only">{t("map.fill")}</legend>
      {fills.map((name) => {
        const on = name === fillOf(fill);
        return (
          <button
            key={name}
            type="button"
            aria-pressed={on}
            onClick={() =>
              void navigate({
                search: (s) => ({ ...s, fill: name === "temp" ? undefined : name }),
                resetScroll: false,
              })
            }
            className={`min-h-7 rounded border px-2 ${on ? "border-accent bg-accent text-accent-ink" : "border-edge text-text hover:bg-sunk"}`}
          >
            {t(`map.by.${name}`)}
          </button>
        );
      })}
    </fieldset>
  );
}
