// What the pages of tickets, visits and health ask for.
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { get, post, url } from "./client";
import type {
  BoxCare,
  CareReport,
  RmaList,
  SiteCareList,
  Ticket,
  TicketCounts,
  TicketList,
  VisitList,
  VisitPlan,
} from "./generated";

export const carePaths = {
  tickets: "/api/v1/tickets",
  ticketCounts: "/api/v1/tickets:counts",
  ticket: "/api/v1/tickets/{id}",
  ticketActions: "/api/v1/tickets/{id}/actions",
  visits: "/api/v1/visits",
  visitPlan: "/api/v1/visits:plan",
  visitActions: "/api/v1/visits/{id}/actions",
  rmas: "/api/v1/rmas",
  rmaActions: "/api/v1/rmas/{id}/actions",
  notifyTest: "/api/v1/notify:test",
  report: "/api/v1/care",
  sites: "/api/v1/care/sites",
  photo: "/api/v1/boxes/{id}/photo",
  box: "/api/v1/boxes/{id}/care",
} as const;

/** Findings and forecasts change by the hour; what people do is announced. */
const slowly = 60_000;

export const ticketCountsQuery = (filter: string) =>
  queryOptions({
    queryKey: ["tickets", "counts", filter],
    queryFn: ({ signal }) => get<TicketCounts>(url(carePaths.ticketCounts, {}, { filter }), signal),
    refetchInterval: slowly,
  });

export const ticketListQuery = (filter: string, order: string) =>
  infiniteQueryOptions({
    queryKey: ["tickets", "list", filter, order],
    queryFn: ({ pageParam, signal }) => {
      const query = { filter, order_by: order, page_size: 100, page_token: pageParam };
      return get<TicketList>(url(carePaths.tickets, {}, query), signal);
    },
    initialPageParam: "",
    getNextPageParam: (last) => last.next_page_token || undefined,
  });

export const ticketQuery = (id: string) =>
  queryOptions({
    queryKey: ["tickets", "one", id],
    queryFn: ({ signal }) => get<Ticket>(url(carePaths.ticket, { id }), signal),
  });

export const openVisitsQuery = queryOptions({
  queryKey: ["visits", "open"],
  queryFn: ({ signal }) => get<VisitList>(url(carePaths.visits, {}, { open: "true" }), signal),
});

/** planQuery asks for the route of today without making its visits. */
export const planQuery = (region: string) =>
  queryOptions({
    queryKey: ["visits", "plan", region],
    queryFn: () => post<VisitPlan>(carePaths.visitPlan, { region }),
    staleTime: slowly,
  });

export const careSitesQuery = queryOptions({
  queryKey: ["care", "sites"],
  queryFn: ({ signal }) => get<SiteCareList>(carePaths.sites, signal),
  refetchInterval: slowly,
});

export const careReportQuery = queryOptions({
  queryKey: ["care", "report"],
  queryFn: ({ signal }) => get<CareReport>(carePaths.report, signal),
  refetchInterval: slowly,
});

export const rmasQuery = queryOptions({
  queryKey: ["care", "rmas"],
  queryFn: ({ signal }) => get<RmaList>(carePaths.rmas, signal),
});

export const boxCareQuery = (id: string) =>
  queryOptions({
    queryKey: ["care", "box", id],
    queryFn: ({ signal }) => get<BoxCare>(url(carePaths.box, { id }), signal),
    refetchInterval: slowly,
  });
