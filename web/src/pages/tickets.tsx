// Tickets: what is to be done about boxes, and who goes where for it.
import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import { ticketCountsQuery, ticketListQuery } from "../api/care";
import type { Ticket, TicketCounts } from "../api/generated";
import { number } from "../format";
import { Brief, Sure } from "../ui/forecast";
import { Icon, type IconName } from "../ui/icons";
import { Ago, Card, Command, Empty, Fault, Loading, Page, Scroll, Simulated } from "../ui/parts";
import { SortHead } from "../ui/sort";
import { State, useWord } from "../ui/state";
import { NumbersView } from "./carenumbers";
import { NoticesView } from "./notices";
import { PartsView } from "./spares";
import { filterOf, ranked, type TicketSearch, ticketStates } from "./ticketfilter";
import { VisitsView } from "./visits";

const route = getRouteApi("/tickets");

/** useChange writes into the address; what is the default is left out of it. */
function useChange() {
  const navigate = route.useNavigate();
  return (change: Partial<TicketSearch>) =>
    void navigate({ search: (s) => ({ ...s, ...change }), resetScroll: false });
}

const views: Record<string, IconName> = {
  list: "tickets",
  visits: "rollouts",
  parts: "models",
  notices: "live",
  numbers: "waiting",
};

export function TicketsPage() {
  const { t } = useTranslation();
  const { view } = route.useSearch();
  const counts = useQuery(ticketCountsQuery(""));
  return (
    <Page
      title={t("tickets.title")}
      aside={counts.data && t("count.ticketsOpen", { count: counts.data.open })}
    >
      <nav aria-label={t("tickets.views")} className="mb-3 flex flex-wrap gap-1">
        {Object.entries(views).map(([name, icon]) => {
          const on = (view ?? "list") === name;
          return (
            <Link
              key={name}
              to="/tickets"
              search={(s) => ({ ...s, view: name === "list" ? undefined : name })}
              aria-current={on ? "page" : undefined}
              className={`flex min-h-8 items-center gap-1.5 rounded border px-3 ${on ? "border-accent bg-accent font-semibold text-accent-ink" : "border-edge text-text hover:bg-sunk"}`}
            >
              <Icon name={icon} size={14} />
              {t(`tickets.view.${name}`)}
            </Link>
          );
        })}
      </nav>
      {counts.error && <Fault error={counts.error} retry={() => void counts.refetch()} />}
      {view === "visits" ? (
        <VisitsView />
      ) : view === "parts" ? (
        <PartsView />
      ) : view === "notices" ? (
        <NoticesView />
      ) : view === "numbers" ? (
        <NumbersView />
      ) : (
        <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
          {counts.data && <Cards counts={counts.data} />}
          {counts.data && <Filters counts={counts.data} />}
          <Table fleetHasNone={counts.data?.total === 0} />
        </div>
      )}
    </Page>
  );
}

/** cardsOf lists the counts that people look at first, each with what it filters by. */
export function cardsOf(counts: TicketCounts): {
  key: string;
  icon: IconName;
  colour: string;
  count: number;
  search: Partial<TicketSearch>;
}[] {
  const { states, levels } = counts;
  return [
    {
      key: "urgent",
      icon: "throttling",
      colour: "text-hot",
      count: levels.urgent ?? 0,
      search: { state: undefined, level: "urgent" },
    },
    { key: "due", icon: "fault", colour: "text-warm", count: counts.due, search: { state: "due" } },
    {
      key: "dispatched",
      icon: "rollouts",
      colour: "text-busy",
      count: states.dispatched ?? 0,
      search: { state: "dispatched" },
    },
    { key: "done", icon: "waiting", colour: "text-busy", count: states.done ?? 0, search: { state: "done" } },
    {
      key: "verified",
      icon: "ok",
      colour: "text-ok",
      count: states.verified ?? 0,
      search: { state: "verified" },
    },
  ];
}

function Cards({ counts }: { counts: TicketCounts }) {
  const { t, i18n } = useTranslation();
  const search = route.useSearch();
  const change = useChange();
  return (
    <ul className="grid grid-cols-2 gap-2 sm:grid-cols-3 lg:flex">
      {cardsOf(counts).map((card) => {
        const on = search.state === card.search.state && search.level === card.search.level;
        return (
          <li key={card.key} className="lg:flex-1">
            <button
              type="button"
              aria-pressed={on}
              onClick={() =>
                change(on ? { state: undefined, level: undefined } : { level: undefined, ...card.search })
              }
              className={`card flex h-full w-full items-baseline justify-between gap-x-2 px-3 py-1.5 text-left hover:border-edge sm:block sm:py-2 ${on ? "outline-2 outline-accent" : ""}`}
            >
              <span
                className={`chip whitespace-normal text-xs ${card.count > 0 ? card.colour : "text-soft"}`}
              >
                <Icon name={card.icon} size={14} />
                {t(`tickets.card.${card.key}`)}
              </span>
              <span
                className={`num block text-xl leading-tight sm:text-2xl ${card.count > 0 ? "" : "text-soft"}`}
              >
                {number(card.count, i18n.language)}
              </span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

/** Filters offers what open tickets have; a value of the address is offered always. */
function Filters({ counts }: { counts: TicketCounts }) {
  const { t } = useTranslation();
  const word = useWord();
  const search = route.useSearch();
  const change = useChange();
  const withOwn = (rows: [string, number][], own: string | undefined) =>
    own && !rows.some(([name]) => name === own) ? [...rows, [own, 0] as [string, number]] : rows;
  const lists: [keyof TicketSearch, string, [string, string][]][] = [
    [
      "state",
      t("tickets.allOpen"),
      [
        ["due", t("tickets.card.due")],
        ["all", t("tickets.allStates")],
        ...ticketStates.map(
          (s) => [s, `${word("ticket", s)} (${counts.states[s] ?? 0})`] as [string, string],
        ),
      ],
    ],
    [
      "level",
      t("tickets.all"),
      ["urgent", "ticket", "watch"].map((l) => [l, `${word("health", l)} (${counts.levels[l] ?? 0})`]),
    ],
    [
      "cause",
      t("tickets.all"),
      withOwn(ranked(counts.causes), search.cause).map(([c, n]) => [c, `${word("heatCause", c)} (${n})`]),
    ],
    [
      "site",
      t("tickets.all"),
      withOwn(
        ranked(counts.sites).filter(([s]) => s),
        search.site,
      ).map(([s, n]) => [s, `${s} (${n})`]),
    ],
  ];
  const some = search.state || search.level || search.cause || search.site;
  return (
    <search className="flex flex-wrap items-end gap-2">
      {lists.map(([key, all, options]) => (
        <label key={key} className="min-w-0 flex-1 basis-36 text-xs text-soft sm:max-w-56">
          {t(`tickets.by.${key}`)}
          <select
            className="input block w-full text-sm"
            value={search[key] ?? ""}
            onChange={(event) => change({ [key]: event.target.value || undefined })}
          >
            <option value="">{all}</option>
            {options.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
      ))}
      {some && (
        <button
          type="button"
          className="button"
          onClick={() => change({ state: undefined, level: undefined, cause: undefined, site: undefined })}
        >
          {t("filter.clear")}
        </button>
      )}
    </search>
  );
}

/** Urgent ones are what a day begins with; by letters, "urgent" comes after "ticket". */
const firstOrder = "level desc";

function Table({ fleetHasNone }: { fleetHasNone: boolean }) {
  const { t } = useTranslation();
  const search = route.useSearch();
  const change = useChange();
  const order = search.order ?? firstOrder;
  const filter = filterOf(search);
  const list = useInfiniteQuery({ ...ticketListQuery(filter, order), placeholderData: keepPreviousData });
  const tickets = list.data?.pages.flatMap((page) => page.items) ?? [];
  const total = list.data?.pages[0]?.total_size ?? 0;
  if (list.error && !list.data) {
    return (
      <Card>
        <Fault error={list.error} retry={() => void list.refetch()} />
      </Card>
    );
  }
  const head = (key: string, field?: string, className?: string) => (
    <SortHead
      label={t(`tickets.column.${key}`)}
      field={field}
      order={order}
      className={className}
      go={(next) => change({ order: next === firstOrder ? undefined : next })}
    />
  );
  return (
    <Card
      title={t("tickets.list")}
      aside={
        list.data && (
          <span className="flex flex-wrap items-baseline gap-x-4">
            <span role="status">
              {tickets.length < total
                ? t("tickets.part", { shown: tickets.length, count: total })
                : t("count.tickets", { count: total })}
            </span>
            <code className="code hidden md:inline">{filter}</code>
          </span>
        )
      }
      className={list.isPlaceholderData ? "opacity-70" : ""}
    >
      {!list.data ? (
        <Loading height={300} />
      ) : tickets.length === 0 ? (
        <NoTicket none={fleetHasNone} />
      ) : (
        <Scroll label={t("tickets.list")}>
          <table className="grid-table">
            <thead>
              <tr>
                {head("ticket", "number")}
                {head("level", "level", "hidden sm:table-cell")}
                {head("cause", "cause")}
                {head("throttles", "low_days", "hidden sm:table-cell")}
                {head("site", "site", "hidden lg:table-cell")}
                {head("state", "state", "hidden sm:table-cell")}
                {head("opened", "opened", "hidden md:table-cell")}
              </tr>
            </thead>
            <tbody>
              {tickets.map((ticket) => (
                <Row key={ticket.id} ticket={ticket} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {list.hasNextPage && (
        <div className="p-2 text-center">
          <button
            type="button"
            className="button"
            disabled={list.isFetchingNextPage}
            onClick={() => void list.fetchNextPage()}
          >
            {list.isFetchingNextPage ? t("loading") : t("table.more")}
          </button>
        </div>
      )}
      {total > 0 && (
        <p className="border-t border-line px-3 py-2 text-xs text-soft">
          {t("tickets.export")}{" "}
          <span className="code">edgeherd ticket export {filter && <>--filter &apos;{filter}&apos;</>}</span>
        </p>
      )}
    </Card>
  );
}

/** useName says what a ticket is about: a box, a whole site, or all boxes of a product. */
export function useName(): (ticket: Ticket) => string {
  const { t } = useTranslation();
  return ({ box_name: box, site, sku = "" }) =>
    box || (site ? t("ticket.wholeSite", { site }) : t("ticket.wholeSKU", { sku }));
}

function Row({ ticket }: { ticket: Ticket }) {
  const { t } = useTranslation();
  const name = useName();
  const word = useWord();
  return (
    <tr>
      <td className="min-w-36">
        <Link to="/tickets/$id" params={{ id: ticket.id }} className="link font-medium">
          {name(ticket)}
        </Link>
        <span className="block text-xs text-soft">
          <span className="num">{ticket.id}</span> <span className="lg:hidden">{ticket.site} </span>
          {ticket.simulated && <Simulated />}
        </span>
      </td>
      <td className="hidden sm:table-cell">
        <State kind="health" value={ticket.level} />
      </td>
      <td>
        <span className="block font-medium">{word("heatCause", ticket.cause)}</span>
        <span className="flex flex-wrap gap-x-2.5 text-xs sm:hidden">
          <State kind="health" value={ticket.level} />
          <State kind="ticket" value={ticket.state} />
          {ticket.assignee}
        </span>
        <Sure of={ticket.confidence} />
        {ticket.forecast && (
          <span className="block text-xs sm:hidden">
            {t("tickets.column.throttles")} <Brief forecast={ticket.forecast} />
          </span>
        )}
      </td>
      <td className="hidden sm:table-cell sm:w-48">
        <Brief forecast={ticket.forecast} />
      </td>
      <td className="hidden lg:table-cell">
        {ticket.site}
        {ticket.place && <span className="block text-xs text-soft">{ticket.place}</span>}
      </td>
      <td className="hidden sm:table-cell">
        <State kind="ticket" value={ticket.state} />
        {ticket.assignee && <span className="block text-xs text-soft">{ticket.assignee}</span>}
      </td>
      <td className="hidden md:table-cell">
        <Ago time={ticket.opened} />
      </td>
    </tr>
  );
}

function NoTicket({ none }: { none: boolean }) {
  const { t } = useTranslation();
  if (!none) return <Empty title={t("tickets.noneFits")}>{t("tickets.noneFitsHint")}</Empty>;
  return (
    <Empty title={t("tickets.empty")}>
      <p>{t("tickets.emptyHint")}</p>
      <Command>edgeherd ticket open --box NAME --cause airflow</Command>
    </Empty>
  );
}
