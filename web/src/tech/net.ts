// The way to the controller: questions that are answered from the phone's disk
// when there is no network, and the queue of actions.
import { useEffect, useState } from "preact/hooks";
import type { Session } from "../api/generated";
import * as disk from "./disk";
import { type Action, Queue, type Reply } from "./queue";

const base = "/api/v1";

export class Problem extends Error {
  status: number;
  hint: string;
  constructor(status: number, detail: string, hint = "") {
    super(detail);
    this.status = status;
    this.hint = hint;
  }
}

async function problemOf(reply: Response): Promise<Problem> {
  const p = (await reply.json().catch(() => ({}))) as { detail?: string; hint?: string };
  return new Problem(reply.status, p.detail ?? reply.statusText, p.hint);
}

async function ask<T>(path: string): Promise<T> {
  const reply = await fetch(base + path, {
    headers: { Accept: "application/json" },
    signal: AbortSignal.timeout(15_000),
  }).catch((err) => {
    throw new Problem(0, String(err));
  });
  if (!reply.ok) throw await problemOf(reply);
  return (await reply.json()) as T;
}

async function send(action: Action): Promise<Reply> {
  const reply = await fetch(base + action.path, {
    method: "POST",
    headers: { Accept: "application/json", "Content-Type": "application/json", "Idempotency-Key": action.id },
    body: JSON.stringify(action.body),
    signal: AbortSignal.timeout(60_000), // a picture over a weak network
  });
  if (reply.ok) return { status: reply.status };
  const { status, message, hint } = await problemOf(reply);
  return { status, detail: message, hint };
}

type Listener = () => void;
const listeners = new Set<Listener>();
const changed = () => {
  for (const listener of listeners) listener();
};

export const queue = new Queue(disk.shelf, send, changed);

/** who is signed in: undefined is not known yet, null nobody. */
export let who: Session | null | undefined;

/** useNet draws again when the queue or the session changes. */
export function useNet(): void {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = () => draw((n) => n + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
}

/** sync finds out who is signed in and sends what waits, in one tab at a time. */
export async function sync(): Promise<void> {
  try {
    who = await ask<Session>("/session");
    await disk.keep({ path: "/session", at: Date.now(), body: who });
  } catch (err) {
    if (err instanceof Problem && err.status === 401) {
      who = null;
      queue.way = "signed-out";
    } else {
      who ??= ((await disk.kept("/session"))?.body as Session | undefined) ?? who;
      queue.way = "offline";
    }
    await queue.load();
    return;
  }
  const { user } = who;
  // Other tabs may hold the lock; then they send. Plain http has no locks.
  if (navigator.locks) {
    await navigator.locks.request("edgeherd-tech", { ifAvailable: true }, (lock) =>
      lock ? queue.flush(user) : queue.load(),
    );
  } else await queue.flush(user);
  changed();
}

/** newId draws the id of an action; randomUUID is missing on plain http hosts. */
export const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

/** act queues an action and tries to send it. The action is safe when this returns. */
export async function act(action: Pick<Action, "id" | "kind" | "about" | "path" | "body">): Promise<void> {
  await queue.add({ ...action, by: who?.user ?? "", made: Date.now() });
  void sync();
}

export type Answer<T> = { data?: T; at?: number; problem?: Problem };

/** useAsk asks now, and again each so many ms; path "" asks nothing. */
export function useAsk<T>(path: string, every = 0): Answer<T> {
  const [answer, set] = useState<Answer<T> & { path?: string }>({});
  useEffect(() => {
    if (path === "") return;
    let gone = false;
    const once = async () => {
      try {
        const data = await ask<T>(path);
        if (!gone) set({ path, data, at: Date.now() });
        await disk.keep({ path, at: Date.now(), body: data });
      } catch (err) {
        const problem = err instanceof Problem ? err : new Problem(-1, String(err));
        // What it said the last time is better than nothing, unless it is refused now.
        const old = problem.status === 0 || problem.status >= 500 ? await disk.kept(path) : undefined;
        if (!gone) set({ path, problem, ...(old && { data: old.body as T, at: old.at }) });
      }
    };
    void once();
    const timer = every > 0 ? setInterval(once, every) : undefined;
    const online = () => void once();
    addEventListener("online", online);
    return () => {
      gone = true;
      clearInterval(timer);
      removeEventListener("online", online);
    };
  }, [path, every]);
  return answer.path === path ? answer : {};
}

const back = "edgeherd.then"; // src/api/then.ts reads it

/** signIn goes to the dashboard's page, which comes back here. */
export function signIn(): void {
  try {
    localStorage.setItem(back, JSON.stringify({ path: location.pathname, until: Date.now() + 900_000 }));
  } catch {
    // Storage may be forbidden: the dashboard opens then.
  }
  location.assign("/sign-in");
}

export async function signOut(): Promise<void> {
  await fetch(`${base}/logout`, { method: "POST" });
  await disk.forget();
  who = null;
  changed();
}
