// What the pages of sign-in, users, tokens and the audit log ask for.
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { get, post, url } from "./client";
import type { ApiTokenList, AuditList, AuditState, Session, SignInWays, UserList } from "./generated";

export const peoplePaths = {
  ways: "/api/v1/sign-in",
  sessions: "/api/v1/sessions",
  logout: "/api/v1/logout",
  passwords: "/api/v1/passwords",
  invitation: "/api/v1/passwords:check",
  users: "/api/v1/users",
  userActions: "/api/v1/users/{name}/actions",
  tokens: "/api/v1/tokens",
  token: "/api/v1/tokens/{id}",
  audit: "/api/v1/audit",
  auditState: "/api/v1/audit:verify",
  auditExport: "/api/v1/audit:export",
} as const;

/** What a session may do, as the controller names it. */
export type Verb =
  | "people.manage"
  | "audit.read"
  | "audit.read-all"
  | "audit.export"
  | "care.act"
  | "rollout.run"
  | "rollout.stop"
  | "secret.set"
  | "site.set";

export const can = (session: Session | undefined, verb: Verb): boolean =>
  session?.can.includes(verb) ?? false;

/** canEverywhere is for what concerns all sites at once: the controller refuses it to who sees some only. */
export const canEverywhere = (session: Session | undefined, verb: Verb): boolean =>
  can(session, verb) && session?.sites.includes("*") === true;

export const waysQuery = queryOptions({
  queryKey: ["ways"],
  queryFn: ({ signal }) => get<SignInWays>(peoplePaths.ways, signal),
});

export const usersQuery = queryOptions({
  queryKey: ["people", "users"],
  queryFn: ({ signal }) => get<UserList>(peoplePaths.users, signal),
});

export const tokensQuery = queryOptions({
  queryKey: ["people", "tokens"],
  queryFn: ({ signal }) => get<ApiTokenList>(peoplePaths.tokens, signal),
});

export const auditQuery = (actor: string) =>
  infiniteQueryOptions({
    queryKey: ["audit", "list", actor],
    queryFn: ({ pageParam, signal }) =>
      get<AuditList>(
        url(peoplePaths.audit, {}, { actor, before: pageParam || undefined, limit: 100 }),
        signal,
      ),
    initialPageParam: 0,
    getNextPageParam: (last) => last.next || undefined,
  });

export const auditStateQuery = queryOptions({
  queryKey: ["audit", "state"],
  queryFn: ({ signal }) => get<AuditState>(peoplePaths.auditState, signal),
  staleTime: 60_000,
});

/** leave ends the session and goes to the sign-in page with nothing in memory. */
export async function leave(): Promise<void> {
  await fetch(peoplePaths.logout, { method: "POST", credentials: "same-origin" });
  location.assign("/sign-in");
}

export const signIn = (name: string, password: string) =>
  post<Session>(peoplePaths.sessions, { name, password });
