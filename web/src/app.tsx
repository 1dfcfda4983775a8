// The pages and what their addresses hold: everything that a pasted link must
// bring back is in the address.
import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import { FleetPage } from "./pages/fleet";
import type { TicketSearch } from "./pages/ticketfilter";
import { Fault } from "./ui/parts";
import { NotFound, Shell } from "./ui/shell";

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : typeof value === "number" ? String(value) : undefined;

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

export const fleetRoute = createRoute({
  getParentRoute: () => root,
  path: "/",
  validateSearch: (search: Record<string, unknown>): { q?: string; order?: string; fill?: string } => ({
    q: text(search.q),
    order: text(search.order),
    fill: text(search.fill),
  }),
  component: FleetPage,
});

export const boxRoute = createRoute({
  getParentRoute: () => root,
  path: "/boxes/$id",
  validateSearch: (search: Record<string, unknown>): { t?: string; from?: string; to?: string } => ({
    t: text(search.t),
    from: text(search.from),
    to: text(search.to),
  }),
  component: lazyRouteComponent(() => import("./pages/box"), "BoxPage"),
});

const modelsRoute = createRoute({
  getParentRoute: () => root,
  path: "/models",
  component: lazyRouteComponent(() => import("./pages/models"), "ModelsPage"),
});

const rolloutsRoute = createRoute({
  getParentRoute: () => root,
  path: "/rollouts",
  component: lazyRouteComponent(() => import("./pages/rollouts"), "RolloutsPage"),
});

export const rolloutRoute = createRoute({
  getParentRoute: () => root,
  path: "/rollouts/$id",
  validateSearch: (search: Record<string, unknown>): { state?: string } => ({ state: text(search.state) }),
  component: lazyRouteComponent(() => import("./pages/rollout"), "RolloutPage"),
});

const sitesRoute = createRoute({
  getParentRoute: () => root,
  path: "/sites",
  component: lazyRouteComponent(() => import("./pages/sites"), "SitesPage"),
});

const ticketsRoute = createRoute({
  getParentRoute: () => root,
  path: "/tickets",
  validateSearch: (search: Record<string, unknown>): TicketSearch => ({
    view: text(search.view),
    state: text(search.state),
    level: text(search.level),
    cause: text(search.cause),
    site: text(search.site),
    order: text(search.order),
    region: text(search.region),
  }),
  component: lazyRouteComponent(() => import("./pages/tickets"), "TicketsPage"),
});

const ticketRoute = createRoute({
  getParentRoute: () => root,
  path: "/tickets/$id",
  component: lazyRouteComponent(() => import("./pages/ticket"), "TicketPage"),
});

const peopleRoute = createRoute({
  getParentRoute: () => root,
  path: "/people",
  component: lazyRouteComponent(() => import("./pages/people"), "PeoplePage"),
});

const secretsRoute = createRoute({
  getParentRoute: () => root,
  path: "/secrets",
  component: lazyRouteComponent(() => import("./pages/secrets"), "SecretsPage"),
});

export const auditRoute = createRoute({
  getParentRoute: () => root,
  path: "/audit",
  validateSearch: (search: Record<string, unknown>): { actor?: string } => ({ actor: text(search.actor) }),
  component: lazyRouteComponent(() => import("./pages/audit"), "AuditPage"),
});

const signInRoute = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  component: lazyRouteComponent(() => import("./pages/signin"), "SignInPage"),
});

const setPasswordRoute = createRoute({
  getParentRoute: () => root,
  path: "/set-password",
  component: lazyRouteComponent(() => import("./pages/signin"), "SetPasswordPage"),
});

export const makeRouter = () =>
  createRouter({
    routeTree: root.addChildren([
      fleetRoute,
      boxRoute,
      ticketsRoute,
      ticketRoute,
      modelsRoute,
      rolloutsRoute,
      rolloutRoute,
      sitesRoute,
      peopleRoute,
      secretsRoute,
      auditRoute,
      signInRoute,
      setPasswordRoute,
    ]),
    defaultPreload: "intent",
    defaultErrorComponent: ({ error, reset }) => <Fault error={error} retry={reset} />,
    scrollRestoration: true,
  });
