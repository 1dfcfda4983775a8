// Visits: which sites are worth a way, the route of the day, and the visits
// that are planned or under way. One visit is for all that is due at its site.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { carePaths, careSitesQuery, openVisitsQuery, planQuery } from "../api/care";
import { newKey, post } from "../api/client";
import type { NewVisit, Part, PlanVisits, SiteCare, VisitPlan } from "../api/generated";
import { now } from "../api/now";
import { distance, number } from "../format";
import { Ask, Field } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Card, Day, Empty, Fault, Loading, Scroll } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { useMayAct } from "./ticketactions";
import { VisitCard } from "./visit";

const route = getRouteApi("/tickets");

export function VisitsView() {
  return (
    <div className="grid grid-cols-[minmax(0,1fr)] items-start gap-3 xl:grid-cols-2">
      <Sites />
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        <Route />
        <Open />
      </div>
    </div>
  );
}

/** useParts says what to take along: "2 filters, 1 fan". */
export function useParts(): (parts: Part[]) => string {
  const { t } = useTranslation();
  const word = useWord();
  return (parts) =>
    parts.length === 0
      ? t("visits.noParts")
      : parts.map(({ part, count }) => `${count} × ${word("part", part)}`).join(", ");
}

/** useVisits sends what makes visits and refreshes what they touch. */
function useVisits(path: string, done: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: NewVisit | PlanVisits) => post<unknown>(path, body, newKey()),
    onSuccess: done,
    onSettled: () => {
      for (const topic of ["visits", "tickets", "care"]) {
        void client.invalidateQueries({ queryKey: [topic] });
      }
    },
  });
}

const today = () => new Date(now()).toISOString().slice(0, 10);

function When({ value, set }: { value: Sending; set: (value: Sending) => void }) {
  const { t } = useTranslation();
  return (
    <>
      <Field label={t("visits.day")}>
        <input
          type="date"
          required
          className="input"
          value={value.day}
          onChange={(event) => set({ ...value, day: event.target.value })}
        />
      </Field>
      <Field label={t("ticket.assignee")}>
        <input
          className="input w-full"
          maxLength={200}
          autoComplete="off"
          value={value.assignee}
          onChange={(event) => set({ ...value, assignee: event.target.value })}
        />
      </Field>
    </>
  );
}

type Sending = { day: string; assignee: string };

/** partsOf leaves out what was not filled in. */
const sending = ({ day, assignee }: Sending) => ({
  day,
  ...(assignee.trim() && { assignee: assignee.trim() }),
});

/** Sites is the roll-up: what is due at each site, worth one visit or not yet. */
function Sites() {
  const { t } = useTranslation();
  const sites = useQuery(careSitesQuery);
  const may = useMayAct();
  const [planning, plan] = useState<SiteCare>();
  const due = sites.data?.items.filter((site) => site.due > 0 || site.next_visit) ?? [];
  return (
    <Card title={t("visits.sites")} aside={t("visits.sitesHint")}>
      {sites.error && !sites.data ? (
        <Fault error={sites.error} retry={() => void sites.refetch()} />
      ) : !sites.data ? (
        <Loading />
      ) : due.length === 0 ? (
        <Empty title={t("visits.nothingDue")}>{t("visits.nothingDueHint")}</Empty>
      ) : (
        <Scroll label={t("visits.sites")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("sites.site")}</th>
                <th scope="col">{t("visits.due")}</th>
                <th scope="col">{t("visits.visit")}</th>
              </tr>
            </thead>
            <tbody>
              {due.map((site) => (
                <tr key={site.site}>
                  <td>
                    <Link
                      to="/tickets"
                      search={{ site: site.site }}
                      className="link inline-block min-h-7 font-medium"
                    >
                      {site.site}
                    </Link>
                    <span className="block text-xs">
                      <State kind="health" value={site.level} />
                    </span>
                  </td>
                  <td>
                    <span className="num">{t("count.tickets", { count: site.due })}</span>
                    {site.due > 0 && may !== false && (
                      <span className="block text-xs text-soft">
                        {t(site.visit_due ? "visits.worth" : "visits.wait")}
                      </span>
                    )}
                  </td>
                  <td>
                    {site.next_visit && (
                      <span className="block">
                        <span className="num">{site.next_visit}</span>{" "}
                        {site.next_day && <Day time={site.next_day} />}
                      </span>
                    )}
                    {site.due > 0 && (
                      <button
                        type="button"
                        className={`button ${site.visit_due ? "primary" : ""}`}
                        disabled={!may}
                        aria-label={t("visits.planFor", { site: site.site })}
                        onClick={() => plan(site)}
                      >
                        <Icon name="person" />
                        {t("visits.plan")}
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {may === false && <p className="px-3 pb-3 text-soft">{t("tickets.readOnly")}</p>}
      {planning && <PlanOne site={planning} close={() => plan(undefined)} />}
    </Card>
  );
}

function PlanOne({ site, close }: { site: SiteCare; close: () => void }) {
  const { t } = useTranslation();
  const [when, set] = useState<Sending>({ day: today(), assignee: "" });
  const send = useVisits(carePaths.visits, close);
  return (
    <Ask
      title={t("visits.planFor", { site: site.site })}
      does={t("visits.plan")}
      icon="person"
      busy={send.isPending}
      error={send.error}
      submit={() => send.mutate({ site: site.site, ...sending(when) })}
      close={close}
    >
      <p className="text-soft">{t("visits.planHint", { count: site.due })}</p>
      <When value={when} set={set} />
    </Ask>
  );
}

/** Route is the suggestion for today: the order of the sites and what to take along. */
function Route() {
  const { t, i18n } = useTranslation();
  const { region = "" } = route.useSearch();
  const navigate = route.useNavigate();
  const may = useMayAct();
  const sites = useQuery(careSitesQuery);
  const plan = useQuery({ ...planQuery(region), enabled: may === true });
  const parts = useParts();
  const [sendingOff, sendOff] = useState(false);
  const regions = [...new Set(sites.data?.items.map((s) => s.region).filter((r) => r) ?? [])].sort();
  if (may === false) return null;
  const stops = plan.data?.stops ?? [];
  return (
    <Card
      title={t("visits.route")}
      aside={
        plan.data && plan.data.distance_metres > 0
          ? t("visits.asTheCrowFlies", { distance: distance(plan.data.distance_metres, i18n.language) })
          : undefined
      }
    >
      {regions.length > 1 && (
        <label className="mb-2 block px-3 text-xs text-soft">
          {t("ticket.region")}
          <select
            className="input block text-sm"
            value={region}
            onChange={(event) =>
              void navigate({
                search: (s) => ({ ...s, region: event.target.value || undefined }),
                resetScroll: false,
              })
            }
          >
            <option value="">{t("tickets.all")}</option>
            {regions.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      {plan.error && !plan.data ? (
        <Fault error={plan.error} retry={() => void plan.refetch()} />
      ) : !plan.data ? (
        <Loading />
      ) : stops.length === 0 ? (
        <Empty title={t("visits.noRoute")}>{t("visits.nothingDueHint")}</Empty>
      ) : (
        <div className="px-3 pb-3">
          <Stops plan={plan.data} />
          <p className="mt-2">
            <span className="text-soft">{t("visits.take")}</span> {parts(plan.data.parts)}
          </p>
          <p className="mt-1 text-xs text-soft">{t("visits.how")}</p>
          <button type="button" className="button primary mt-3" disabled={!may} onClick={() => sendOff(true)}>
            <Icon name="rollouts" />
            {t("visits.send", { count: stops.length })}
          </button>
          {sendingOff && <SendOff plan={plan.data} close={() => sendOff(false)} />}
        </div>
      )}
    </Card>
  );
}

function Stops({ plan }: { plan: VisitPlan }) {
  const { t, i18n } = useTranslation();
  const parts = useParts();
  return (
    <ol>
      {plan.stops.map((stop, i) => (
        <li
          key={stop.site}
          className="grid grid-cols-[1.75rem_minmax(0,1fr)] gap-x-2 border-t border-line py-2 first:border-0 first:pt-0"
        >
          <span
            aria-hidden="true"
            className="num grid h-6 w-6 place-items-center rounded-full border border-edge text-xs"
          >
            {number(i + 1, i18n.language)}
          </span>
          <div className="min-w-0">
            <div className="flex flex-wrap items-baseline gap-x-3">
              <Link
                to="/tickets"
                search={{ site: stop.site }}
                className="link inline-block min-h-7 font-medium"
              >
                {stop.site}
              </Link>
              <State kind="health" value={stop.level} className="text-xs" />
              {stop.distance_metres > 0 && (
                <span className="num text-xs text-soft">
                  {t("visits.further", { distance: distance(stop.distance_metres, i18n.language) })}
                </span>
              )}
            </div>
            <ul className="text-sm">
              {stop.tickets.map((ticket) => (
                <li key={ticket.id}>
                  <Link
                    to="/tickets/$id"
                    params={{ id: ticket.id }}
                    className="link num mr-1.5 inline-block min-h-7 min-w-7"
                  >
                    {ticket.id}
                  </Link>
                  {ticket.box_name || stop.site}:{" "}
                  <span className="text-soft">{t(`todo.${ticket.cause}`, { defaultValue: ticket.do })}</span>
                </li>
              ))}
            </ul>
            <p className="text-xs text-soft">{parts(stop.parts)}</p>
          </div>
        </li>
      ))}
    </ol>
  );
}

function SendOff({ plan, close }: { plan: VisitPlan; close: () => void }) {
  const { t } = useTranslation();
  const [when, set] = useState<Sending>({ day: plan.day || today(), assignee: "" });
  const send = useVisits(carePaths.visitPlan, close);
  // What is made is what was shown: the sites are named.
  const sites = plan.stops.map((stop) => stop.site);
  return (
    <Ask
      title={t("visits.sendTitle", { count: sites.length })}
      does={t("visits.send", { count: sites.length })}
      icon="rollouts"
      busy={send.isPending}
      error={send.error}
      submit={() =>
        send.mutate({ keep: true, sites, stops: sites.length, region: plan.region, ...sending(when) })
      }
      close={close}
    >
      <p className="text-soft">
        {t("visits.sendHint", {
          count: plan.stops.reduce((sum, stop) => sum + stop.tickets.length, 0),
        })}
      </p>
      <When value={when} set={set} />
    </Ask>
  );
}

function Open() {
  const { t } = useTranslation();
  const visits = useQuery(openVisitsQuery);
  const items = visits.data?.items ?? [];
  return (
    <Card title={t("visits.open")} aside={visits.data && t("count.visits", { count: items.length })}>
      {visits.error && !visits.data ? (
        <Fault error={visits.error} retry={() => void visits.refetch()} />
      ) : !visits.data ? (
        <Loading />
      ) : items.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("visits.none")}</p>
      ) : (
        <ul className="px-3 pb-1">
          {items.map((visit) => (
            <VisitCard key={visit.id} visit={visit} />
          ))}
        </ul>
      )}
    </Card>
  );
}
