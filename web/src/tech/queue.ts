// What a tech did, until the controller has heard of it. Each action bears an id
// of its own, which is its idempotency key: it may be sent twice, and counts once.
// It belongs to who did it, and is never sent in the name of somebody else.

export type Action = {
  id: string;
  by: string; // who did it; "" while nobody was known
  made: number; // Unix ms
  kind: "claim" | "work" | "arrive" | "done";
  about: string; // box, place or site, for people
  path: string;
  body: unknown;
  state: "queued" | "sent" | "rejected";
  why?: string; // of rejected: the controller's sentence
  hint?: string;
};

/** Shelf is where actions survive a reload. */
export interface Shelf {
  all(): Promise<Action[]>;
  put(action: Action): Promise<void>;
  remove(id: string): Promise<void>;
}

export type Reply = { status: number; detail?: string; hint?: string };

/** Send posts an action; it throws when there is no way to the controller. */
export type Send = (action: Action) => Promise<Reply>;

/** Way is how the last sending went. */
export type Way = "open" | "offline" | "signed-out";

const sentKept = 24 * 3600_000; // ms

export class Queue {
  items: Action[] = [];
  way: Way = "open";
  #shelf: Shelf;
  #send: Send;
  #changed: () => void;
  #running: Promise<void> | undefined;

  constructor(shelf: Shelf, send: Send, changed: () => void) {
    this.#shelf = shelf;
    this.#send = send;
    this.#changed = changed;
  }

  /** load reads the shelf anew, which other tabs write as well, and forgets what was sent long ago. */
  async load(now = Date.now()): Promise<void> {
    const all = (await this.#shelf.all()).sort((a, b) => a.made - b.made || (a.id < b.id ? -1 : 1));
    const old = (a: Action) => a.state === "sent" && now - a.made > sentKept;
    for (const action of all.filter(old)) await this.#shelf.remove(action.id);
    this.items = all.filter((a) => !old(a));
    this.#changed();
  }

  async add(action: Omit<Action, "state">): Promise<void> {
    await this.#put({ ...action, state: "queued" });
  }

  /** again has a rejected action tried once more. */
  async again(id: string): Promise<void> {
    const action = this.items.find((a) => a.id === id);
    if (action?.state === "rejected") await this.#put(bare({ ...action, state: "queued" }));
  }

  async drop(id: string): Promise<void> {
    await this.#shelf.remove(id);
    this.items = this.items.filter((a) => a.id !== id);
    this.#changed();
  }

  /** flush sends what is queued by a person, oldest first, until there is no way. */
  flush(user: string): Promise<void> {
    this.#running ??= this.#flush(user).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #flush(user: string): Promise<void> {
    await this.load();
    this.#go("open");
    for (;;) {
      // Asked anew each time: one may be dropped or added while another is sent.
      const next = this.items.find((a) => a.state === "queued" && (a.by === user || a.by === ""));
      if (!next) return;
      let reply: Reply;
      try {
        reply = await this.#send(next);
      } catch {
        return this.#go("offline");
      }
      const { status } = reply;
      if (status === 401) return this.#go("signed-out");
      if (status >= 500 || status === 408 || status === 429 || stillAnswered(reply))
        return this.#go("offline");
      if (!this.items.some((a) => a.id === next.id)) continue; // dropped meanwhile
      const ok = status < 300;
      await this.#put(
        ok
          ? slim({ ...next, by: user, state: "sent" })
          : {
              ...next,
              by: user,
              state: "rejected",
              why: reply.detail ?? String(status),
              hint: reply.hint ?? "",
            },
      );
    }
  }

  #go(way: Way): void {
    if (way === this.way) return;
    this.way = way;
    this.#changed();
  }

  async #put(action: Action): Promise<void> {
    await this.#shelf.put(action);
    const at = this.items.findIndex((a) => a.id === action.id);
    this.items = at < 0 ? [...this.items, action] : this.items.map((a) => (a.id === action.id ? action : a));
    this.#changed();
  }
}

/** stillAnswered: the controller has the action and has not finished it. */
const stillAnswered = (r: Reply) =>
  r.status === 409 && !!r.detail?.includes("Idempotency-Key is being answered");

const bare = ({ why: _, hint: __, ...rest }: Action): Action => rest;

/** slim leaves out the picture, which the controller has now. */
function slim(action: Action): Action {
  const { photo: _, ...body } = action.body as { photo?: string };
  return { ...action, body };
}
