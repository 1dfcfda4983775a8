// Requests to the controller. Types come from the generated client, paths are
// plain text: test/unit/paths.test.ts checks each one against openapi.json.
import type { Error as ErrorBody } from "./generated";

/** Problem is an answer that is not a success, as RFC 9457 words it. */
export class Problem extends Error {
  readonly status: number;
  readonly hint: string;
  constructor(status: number, detail: string, hint = "") {
    super(detail);
    this.name = "Problem";
    this.status = status;
    this.hint = hint;
  }
}

type Query = Record<string, string | number | undefined>;

/** url fills {placeholders} of a path and appends the query without empty values. */
export function url(path: string, params: Record<string, string> = {}, query: Query = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") search.set(key, String(value));
  }
  return search.size > 0 ? `${filled}?${search}` : filled;
}

async function answer<T>(response: Response): Promise<T> {
  if (response.ok) return (await response.json()) as T;
  let problem: Partial<ErrorBody> = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy's error page is no problem document; the status says enough.
  }
  const causes = (problem.errors ?? []).map((e) => e.message).filter(Boolean);
  const detail = [problem.detail ?? problem.title ?? response.statusText, ...causes].join(": ");
  throw new Problem(response.status, detail, problem.hint ?? "");
}

async function send<T>(address: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(address, { credentials: "same-origin", ...init });
  } catch (err) {
    if (init.signal?.aborted) throw err;
    throw new Problem(0, String(err));
  }
  return answer<T>(response);
}

export function get<T>(address: string, signal?: AbortSignal): Promise<T> {
  return send<T>(address, { headers: { Accept: "application/json" }, signal });
}

/** post sends a command. The key makes a repeated click or retry act once; a question needs none. */
export function post<T>(address: string, body: unknown, key?: string): Promise<T> {
  return send<T>(address, {
    method: "POST",
    headers: {
      Accept: "application/json",
      "Content-Type": "application/json",
      ...(key && { "Idempotency-Key": key }),
    },
    body: JSON.stringify(body),
  });
}

/** remove ends something. */
export function remove<T>(address: string): Promise<T> {
  return send<T>(address, { method: "DELETE", headers: { Accept: "application/json" } });
}

/** newKey draws an idempotency key; randomUUID is missing on plain http hosts. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join(
    "",
  );
}
