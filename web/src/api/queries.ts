// What the pages ask for. Every key starts with the topic under which the
// controller announces changes, so one announcement refreshes what it touches.
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { get, url } from "./client";
import type {
  AcceptanceList,
  Box,
  BoxFaultList,
  BoxIdentity,
  BoxList,
  EventList,
  ModelList,
  ReleaseList,
  RestoreState,
  ResultList,
  Rollout,
  RolloutList,
  SeriesReply,
  Session,
  SiteList,
  Summary,
  TrustRoles,
} from "./generated";
import { noteServerTime } from "./now";

export const paths = {
  restores: "/api/v1/restores",
  session: "/api/v1/session",
  summary: "/api/v1/summary",
  boxes: "/api/v1/boxes",
  box: "/api/v1/boxes/{id}",
  series: "/api/v1/boxes/{id}/series",
  boxEvents: "/api/v1/boxes/{id}/events",
  boxResults: "/api/v1/boxes/{id}/results",
  boxIdentity: "/api/v1/boxes/{id}/identity",
  boxFaults: "/api/v1/boxes/{id}/faults",
  boxAcceptances: "/api/v1/boxes/{id}/acceptance",
  boxAcceptancePage: "/api/v1/boxes/{id}/acceptance/{report}/html",
  boxAcceptancePDF: "/api/v1/boxes/{id}/acceptance/{report}/pdf",
  models: "/api/v1/models",
  releases: "/api/v1/releases",
  trustRoles: "/api/v1/trust/roles",
  rollouts: "/api/v1/rollouts",
  rollout: "/api/v1/rollouts/{id}",
  rolloutActions: "/api/v1/rollouts/{id}/actions",
  sites: "/api/v1/sites",
  siteSettings: "/api/v1/sites/{site}/settings",
  siteDefaults: "/api/v1/site-defaults",
  events: "/api/v1/events",
} as const;

/** Boxes in one request: the most the API gives. */
const mapPage = 1000;
/** Boxes on the map. The page says so when a fleet has more. */
export const mapLimit = 20_000;

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: ({ signal }) => get<Session>(paths.session, signal),
  staleTime: 300_000,
});

/** Under models: a document that was signed is announced there. */
export const trustRolesQuery = queryOptions({
  queryKey: ["models", "trust"],
  queryFn: ({ signal }) => get<TrustRoles>(paths.trustRoles, signal),
  staleTime: 300_000,
  refetchInterval: 3_600_000,
});

export const summaryQuery = queryOptions({
  queryKey: ["boxes", "summary"],
  queryFn: async ({ signal }) => {
    const summary = await get<Summary>(paths.summary, signal);
    noteServerTime(summary.time);
    return summary;
  },
  refetchInterval: 30_000,
});

export const boxListQuery = (filter: string, order: string) =>
  infiniteQueryOptions({
    queryKey: ["boxes", "list", filter, order],
    queryFn: ({ pageParam, signal }) =>
      get<BoxList>(
        url(paths.boxes, {}, { filter, order_by: order, page_size: 100, page_token: pageParam }),
        signal,
      ),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_page_token || undefined,
  });

/** All boxes that match, page after page: what the host map draws. */
export const boxMapQuery = (filter: string) =>
  queryOptions({
    queryKey: ["boxes", "map", filter],
    queryFn: async ({ signal }) => {
      const items: Box[] = [];
      let token = "";
      let total = 0;
      do {
        const query = { filter, order_by: "site", page_size: mapPage, page_token: token };
        const page = await get<BoxList>(url(paths.boxes, {}, query), signal);
        items.push(...page.items);
        token = page.next_page_token;
        total = page.total_size;
      } while (token && items.length < mapLimit);
      return { items, total };
    },
  });

export const boxQuery = (id: string) =>
  queryOptions({
    queryKey: ["boxes", "one", id],
    queryFn: ({ signal }) => get<Box>(url(paths.box, { id }), signal),
  });

export const boxEventsQuery = (id: string) =>
  queryOptions({
    queryKey: ["boxes", "events", id],
    queryFn: ({ signal }) => get<EventList>(url(paths.boxEvents, { id }, { limit: 50 }), signal),
    refetchInterval: 30_000,
  });

export const boxFaultsQuery = (id: string) =>
  queryOptions({
    queryKey: ["boxes", "faults", id],
    queryFn: ({ signal }) => get<BoxFaultList>(url(paths.boxFaults, { id }), signal),
    refetchInterval: 30_000,
  });

export const boxIdentityQuery = (id: string) =>
  queryOptions({
    queryKey: ["boxes", "identity", id],
    queryFn: ({ signal }) => get<BoxIdentity>(url(paths.boxIdentity, { id }), signal),
  });

export const boxAcceptancesQuery = (id: string) =>
  queryOptions({
    queryKey: ["boxes", "acceptances", id],
    queryFn: ({ signal }) => get<AcceptanceList>(url(paths.boxAcceptances, { id }), signal),
  });

export const boxResultsQuery = (id: string) =>
  queryOptions({
    queryKey: ["boxes", "results", id],
    queryFn: ({ signal }) => get<ResultList>(url(paths.boxResults, { id }, { limit: 50 }), signal),
    refetchInterval: 10_000,
  });

export type Span = { key: string; range: () => { from: Date; to: Date }; refresh: number | false };

export const seriesQuery = (id: string, metrics: readonly string[], span: Span) =>
  queryOptions({
    queryKey: ["series", id, span.key],
    queryFn: ({ signal }) => {
      const { from, to } = span.range();
      const query = {
        metrics: metrics.join(","),
        from: from.toISOString(),
        to: to.toISOString(),
        points: 400,
      };
      return get<SeriesReply>(url(paths.series, { id }, query), signal);
    },
    refetchInterval: span.refresh,
    placeholderData: (previous, query) => (query?.queryKey[1] === id ? previous : undefined),
  });

export const modelsQuery = queryOptions({
  queryKey: ["models", "list"],
  queryFn: ({ signal }) => get<ModelList>(paths.models, signal),
});

export const releasesQuery = queryOptions({
  queryKey: ["releases", "list"],
  queryFn: ({ signal }) => get<ReleaseList>(paths.releases, signal),
});

/** Under the key of rollouts: what a person chose announces itself as their change. */
export const restoresQuery = queryOptions({
  queryKey: ["rollouts", "restores"],
  queryFn: ({ signal }) => get<RestoreState>(paths.restores, signal),
  refetchInterval: 30_000, // boxes come back by themselves
});

export const rolloutsQuery = infiniteQueryOptions({
  queryKey: ["rollouts", "list"],
  queryFn: ({ pageParam, signal }) =>
    get<RolloutList>(url(paths.rollouts, {}, { page_size: 50, page_token: pageParam }), signal),
  initialPageParam: "",
  getNextPageParam: (last) => last.next_page_token || undefined,
});

export const rolloutQuery = (id: string) =>
  queryOptions({
    queryKey: ["rollouts", "one", id],
    queryFn: ({ signal }) => get<Rollout>(url(paths.rollout, { id }), signal),
  });

// Counts of boxes and what is quiet change by themselves.
export const sitesQuery = queryOptions({
  queryKey: ["sites", "list"],
  queryFn: ({ signal }) => get<SiteList>(paths.sites, signal),
  refetchInterval: 15_000,
});
