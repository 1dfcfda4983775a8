// One ticket: what to do, why, how soon, how far it is, and whether it helped.
import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import { boxCareQuery, ticketQuery } from "../api/care";
import type { BoxCare, Ticket, TicketCheck } from "../api/generated";
import { number, percent, signedPercent } from "../format";
import { Forecast, newest, Sure, useInterval } from "../ui/forecast";
import { Icon } from "../ui/icons";
import { Ago, Card, Clock, Day, Facts, Fault, Loading, Page, Simulated } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { Evidences } from "./evidence";
import { Level } from "./health";
import { Said } from "./phrase";
import { isDrawn, Resistance } from "./resistance";
import { TicketActions } from "./ticketactions";
import { ended } from "./ticketfilter";
import { useName } from "./tickets";

const route = getRouteApi("/tickets/$id");

export function TicketPage() {
  const name = useName();
  const { id } = route.useParams();
  const query = useQuery(ticketQuery(id));
  const ticket = query.data;
  const care = useQuery({ ...boxCareQuery(ticket?.box ?? ""), enabled: !!ticket?.box }).data;
  if (!ticket) {
    return (
      <Page title={id}>
        {query.error ? (
          <Fault error={query.error} retry={() => void query.refetch()} />
        ) : (
          <Loading height={400} />
        )}
      </Page>
    );
  }
  return (
    <Page
      title={
        <>
          {name(ticket)} {ticket.simulated && <Simulated />}
        </>
      }
      aside={
        <span className="flex flex-wrap items-center gap-x-4 gap-y-1">
          <span className="num">{ticket.id}</span>
          {ticket.site && (
            <Link to="/tickets" search={{ site: ticket.site }} className="link">
              {ticket.site}
            </Link>
          )}
          <State kind="health" value={ticket.level} />
          <State kind="ticket" value={ticket.state} />
        </span>
      }
    >
      {query.error && <Fault error={query.error} retry={() => void query.refetch()} />}
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        <Standing ticket={ticket} />
        <Steps ticket={ticket} />
        <div className="grid grid-cols-[minmax(0,1fr)] items-start gap-3 lg:grid-cols-2">
          <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
            <Why ticket={ticket} care={care} />
            {care && isDrawn(care.days) && <Course care={care} />}
            {ticket.check && <Check check={ticket.check} />}
          </div>
          <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
            <About ticket={ticket} />
            <Timeline ticket={ticket} />
          </div>
        </div>
      </div>
    </Page>
  );
}

const frames: Record<string, string> = {
  urgent: "border-hot bg-hot-tint",
  ticket: "border-warm bg-warm-tint",
};

/** Standing is the work in one sentence, with the buttons that move it on. */
function Standing({ ticket }: { ticket: Ticket }) {
  const { t } = useTranslation();
  const word = useWord();
  const over = ticket.state === "verified" || ticket.state === "closed";
  const frame = over
    ? ticket.state === "verified"
      ? "border-ok bg-ok-tint"
      : "border-line bg-card"
    : ticket.state === "done"
      ? "border-busy bg-busy-tint"
      : (frames[ticket.level] ?? "border-line bg-card");
  return (
    <section className={`rounded-lg border-2 p-3 ${frame}`}>
      <p className="text-base font-semibold">
        {over
          ? t(ticket.state === "verified" ? "ticket.proved" : "ticket.ended", {
              why: t(`resolution.${ticket.resolution}`, { defaultValue: ticket.resolution ?? "" }),
            })
          : ticket.state === "done"
            ? t("ticket.proving")
            : t(`todo.${ticket.cause}`, { defaultValue: ticket.do })}
      </p>
      <p className="mt-1 flex flex-wrap items-center gap-x-3 gap-y-1">
        <span>
          {t("ticket.because")} <strong>{word("heatCause", ticket.cause)}</strong>
        </span>
        <Sure of={ticket.confidence} />
        {ticket.part && !over && ticket.state !== "done" && (
          <span className="chip">
            <Icon name="models" size={14} />
            {t("ticket.take", { part: word("part", ticket.part) })}
          </span>
        )}
        {ticket.no_fault_found && <span className="tag">{t("ticket.noFault")}</span>}
        {ticket.manual && <span className="tag">{t("ticket.manual")}</span>}
      </p>
      {ticket.simulated && !over && <p className="mt-1 text-xs text-soft">{t("ticket.simulated")}</p>}
      <TicketActions ticket={ticket} />
    </section>
  );
}

/** stepsOf are the states that a ticket goes through, with when it reached them. */
export function stepsOf(ticket: Ticket): { state: string; at?: string; now: boolean }[] {
  const closed = ticket.state === "closed";
  const steps = [
    { state: "open", at: ticket.opened },
    { state: "acknowledged", at: ticket.acknowledged },
    { state: "dispatched", at: ticket.dispatched },
    { state: "on-site", at: ticket.on_site },
    { state: "done", at: ticket.done },
    closed ? { state: "closed", at: ticket.closed } : { state: "verified", at: ticket.verified },
  ];
  const at = ticket.state === "reopened" ? "open" : ticket.state;
  return steps.map((step) => ({ ...step, now: step.state === at }));
}

function Steps({ ticket }: { ticket: Ticket }) {
  const { t } = useTranslation();
  const word = useWord();
  return (
    <ol
      aria-label={t("ticket.progress")}
      className="card grid grid-cols-1 gap-y-1 px-3 py-2.5 sm:grid-cols-6 sm:gap-x-2"
    >
      {stepsOf(ticket).map((step) => {
        const past = step.at !== undefined;
        const colour = step.now ? "border-accent text-accent" : past ? "border-ok" : "border-line text-soft";
        return (
          <li
            key={step.state}
            aria-current={step.now ? "step" : undefined}
            className={`flex items-baseline justify-between gap-2 border-l-4 pl-2 sm:block sm:border-t-4 sm:border-l-0 sm:pt-1.5 sm:pl-0 ${colour}`}
          >
            <span className={`chip ${step.now ? "font-semibold" : ""}`}>
              {past && !step.now && <Icon name="check" size={14} />}
              {word("ticket", step.now ? ticket.state : step.state)}
            </span>
            <span className="block text-xs text-soft">{step.at ? <Clock time={step.at} /> : "–"}</span>
          </li>
        );
      })}
    </ol>
  );
}

function Why({ ticket, care }: { ticket: Ticket; care: BoxCare | undefined }) {
  const { t } = useTranslation();
  // A ticket keeps the forecast that opened it; the box makes one each day.
  const forecast = ticket.forecast && newest(ticket.forecast, care?.forecast);
  return (
    <Card
      title={t("ticket.why")}
      aside={
        <>
          {t("finding.since")} <Day time={ticket.since} />
          {ticket.measured && (
            <>
              {" · "}
              {t("ticket.asOf")} <Clock time={ticket.measured} />
            </>
          )}
        </>
      }
    >
      <div className="px-3 pb-3">
        <Evidences items={ticket.evidence} />
        <Opening ticket={ticket} />
        {forecast && !ended(ticket.state) && (
          <div className="mt-3 border-t border-line pt-3">
            <Forecast forecast={forecast} />
          </div>
        )}
      </div>
    </Card>
  );
}

/** Opening is what the ticket rested on when it was opened, for the record. */
function Opening({ ticket: { opening, measured } }: { ticket: Ticket }) {
  const { t } = useTranslation();
  const interval = useInterval();
  if (!opening || !measured || Date.parse(measured) - Date.parse(opening.time) < 3_600_000) return null;
  return (
    <details className="mt-2 text-sm text-soft">
      <summary className="min-h-6 py-0.5">
        {t("ticket.opening")} <Day time={opening.time} />
      </summary>
      <Evidences items={opening.evidence} />
      {opening.forecast && (
        <p className="mt-1">
          {t("forecast.throttles", {
            when: interval(opening.forecast.low_days, opening.forecast.high_days),
          })}
        </p>
      )}
    </details>
  );
}

/** Course is how the resistance of the box developed, and where it stands now. */
function Course({ care }: { care: BoxCare }) {
  return (
    <Card>
      <div className="grid grid-cols-[minmax(0,1fr)] gap-2 p-3">
        <Level care={care} />
        <Resistance care={care} />
      </div>
    </Card>
  );
}

function Check({ check }: { check: TicketCheck }) {
  const { t, i18n } = useTranslation();
  const language = i18n.language;
  const standing = !check.decided ? "waiting" : check.helped ? "helped" : "failed";
  const look = { waiting: "text-busy", helped: "text-ok", failed: "text-hot" }[standing];
  const fell = Math.max(0, Math.min(1, check.fell_ratio ?? 0));
  return (
    <Card
      title={t("check.title")}
      aside={
        <span className={`chip ${look}`}>
          <Icon
            name={standing === "helped" ? "ok" : standing === "failed" ? "failed" : "waiting"}
            size={14}
          />
          {t(`check.${standing}`)}
        </span>
      }
    >
      <div className="px-3 pb-3">
        {check.unmeasured ? (
          <p>{t("check.unmeasured")}</p>
        ) : (
          <>
            <p>
              {t("check.rule", {
                before: signedPercent(check.before_percent, language),
                need: percent(check.need_ratio, 1, language),
              })}
            </p>
            <svg width="100%" height="18" className="mt-2 block" aria-hidden="true">
              <rect width="100%" height="10" y="4" rx="3" className="fill-line" />
              <rect
                width={`${100 * fell}%`}
                height="10"
                y="4"
                rx="3"
                className={fell >= check.need_ratio ? "fill-ok" : "fill-warm"}
              />
              <line
                x1={`${100 * check.need_ratio}%`}
                x2={`${100 * check.need_ratio}%`}
                y1="0"
                y2="18"
                className="stroke-text"
                strokeWidth="2"
              />
            </svg>
            <p className="mt-1">
              {check.after_percent === undefined
                ? t("check.nothingYet")
                : t("check.now", {
                    after: signedPercent(check.after_percent, language),
                    fell: percent(check.fell_ratio ?? 0, 1, language),
                  })}{" "}
              <span className="text-soft">{t("check.hours", { count: check.hours })}</span>
            </p>
          </>
        )}
        <p className="mt-1 text-xs text-soft">
          {check.decided ? (
            <>
              {t("check.decided")} <Clock time={check.decided} />
            </>
          ) : (
            <>
              {t("check.until")} <Clock time={check.until} />
            </>
          )}
        </p>
        {check.text && <Said phrase={check} className="mt-1 block text-xs text-soft" />}
      </div>
    </Card>
  );
}

function About({ ticket }: { ticket: Ticket }) {
  const { t, i18n } = useTranslation();
  const items: [string, React.ReactNode][] = [];
  if (ticket.box) {
    items.push([
      t("box.title"),
      <Link key="box" to="/boxes/$id" params={{ id: ticket.box }} className="link">
        {ticket.box_name || ticket.box}
      </Link>,
    ]);
  }
  if (ticket.boxes?.length) items.push([t("ticket.boxes"), ticket.boxes.join(", ")]);
  if (ticket.tickets?.length) {
    items.push([
      t("ticket.theirs"),
      <span key="theirs">
        {ticket.tickets.map((id) => (
          <Link key={id} to="/tickets/$id" params={{ id }} className="link num mr-2 inline-block min-h-7">
            {id}
          </Link>
        ))}
      </span>,
    ]);
  }
  if (ticket.within) {
    items.push([
      t("ticket.within"),
      <Link
        key="within"
        to="/tickets/$id"
        params={{ id: ticket.within }}
        className="link num inline-block min-h-7"
      >
        {ticket.within}
      </Link>,
    ]);
  }
  const plain: [string, string | undefined][] = [
    [t("ticket.place"), ticket.place],
    [t("ticket.region"), ticket.region],
    [t("ticket.sku"), ticket.sku],
    [t("ticket.assignee"), ticket.assignee],
  ];
  for (const [name, value] of plain) if (value) items.push([name, value]);
  if (ticket.visit) {
    items.push([
      t("ticket.visit"),
      <Link key="visit" to="/tickets" search={{ view: "visits" }} className="link num">
        {ticket.visit}
      </Link>,
    ]);
  }
  if (ticket.reopens) items.push([t("ticket.reopens"), number(ticket.reopens, i18n.language)]);
  items.push([t("ticket.changed"), <Ago key="changed" time={ticket.changed} />]);
  return (
    <Card title={t("ticket.about")}>
      <Facts items={items} />
    </Card>
  );
}

function Timeline({ ticket }: { ticket: Ticket }) {
  const { t } = useTranslation();
  return (
    <Card title={t("ticket.timeline")} aside={t("results.newest")}>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take focus (WCAG 2.1.1) */}
      <ol className="max-h-96 overflow-y-auto px-3 pb-2" aria-label={t("ticket.timeline")} tabIndex={0}>
        {[...ticket.timeline].reverse().map((step, i) => (
          <li
            key={`${step.time}/${step.what}/${ticket.timeline.length - i}`}
            className="grid grid-cols-[7.5rem_minmax(0,1fr)] gap-x-3 border-t border-line py-1.5 first:border-0"
          >
            <span className="text-soft">
              <Clock time={step.time} />
            </span>
            <span className="min-w-0">
              <span className="font-medium">
                {t(`step.${step.what.replaceAll(" ", "-")}`, { defaultValue: step.what })}
              </span>{" "}
              <span className="text-xs text-soft">
                {step.by ? t("ticket.by", { name: step.by }) : t("ticket.byItself")}
              </span>
              {step.text && (
                <span className="block break-words text-soft">
                  {step.by ? step.text : <Said phrase={step} />}
                </span>
              )}
            </span>
          </li>
        ))}
      </ol>
    </Card>
  );
}
