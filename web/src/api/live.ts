// What the event stream does to the page: announcements make queries ask
// again, live samples are written into what is shown. Both are collected and
// applied in batches, since a large fleet announces hundreds of times a second.
import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import type { Box, BoxList, Change, LiveSample } from "./generated";
import { type Message, openStream } from "./stream";

/** Pending is what has been announced since the last batch. */
export type Pending = { topics: Set<string>; boxes: Set<string>; live: Map<string, LiveSample> };

export const nothing = (): Pending => ({ topics: new Set(), boxes: new Set(), live: new Map() });

const topics = new Set(["boxes", "models", "releases", "rollouts", "sites", "tickets", "visits"]);

/** reduce adds a change. Topics that a newer controller may send are left alone. */
export function reduce(pending: Pending, change: Change): Pending {
  if (change.topic === "live") {
    const sample = change.live;
    const known = sample && pending.live.get(sample.box);
    if (sample && (!known || known.unix_ms <= sample.unix_ms)) {
      const values = { ...known?.values, ...sample.values };
      pending.live.set(sample.box, { ...sample, values });
    }
  } else if (topics.has(change.topic)) {
    pending.topics.add(change.topic);
    if (change.topic === "boxes" && change.id) pending.boxes.add(change.id);
  }
  return pending;
}

/** patchBox writes a live sample into a box, unless the box has newer values. */
export function patchBox(box: Box, sample: LiveSample | undefined): Box {
  if (!sample) return box;
  const time = new Date(sample.unix_ms).toISOString();
  const latest = { ...box.latest };
  for (const [metric, value] of Object.entries(sample.values)) {
    const known = latest[metric];
    if (!known || Date.parse(known.time) <= sample.unix_ms) latest[metric] = { value, time };
  }
  const newer = !box.last_seen || Date.parse(box.last_seen) <= sample.unix_ms;
  return newer ? { ...box, latest, buffer: sample.buffer, last_seen: time } : { ...box, latest };
}

type Boxes = Box | { items: Box[] } | InfiniteData<BoxList> | undefined;

/** patchCached writes samples into any of the shapes in which boxes are cached. */
export function patchCached(data: Boxes, live: Map<string, LiveSample>): Boxes {
  if (!data) return data;
  const patch = (box: Box) => patchBox(box, live.get(box.id));
  if ("pages" in data) {
    return { ...data, pages: data.pages.map((page) => ({ ...page, items: page.items.map(patch) })) };
  }
  if ("items" in data) return { ...data, items: data.items.map(patch) };
  return "latest" in data ? patch(data) : data;
}

export function apply(client: QueryClient, pending: Pending): void {
  // What boxes and sites tell of their upkeep has tickets and visits in it.
  if (pending.topics.has("tickets") || pending.topics.has("visits")) {
    client.invalidateQueries({ queryKey: ["care"] });
  }
  for (const topic of pending.topics) {
    const one = topic === "boxes" && pending.boxes.size > 0;
    client.invalidateQueries({
      queryKey: [topic],
      // A change of one box leaves the pages of the other boxes as they are.
      predicate: (query) => {
        const [, kind, id] = query.queryKey;
        const single = ["one", "events", "results", "acceptances"].includes(String(kind));
        return !one || !single || pending.boxes.has(String(id));
      },
    });
  }
  if (pending.live.size === 0) return;
  for (const kind of ["one", "list", "map"]) {
    client.setQueriesData<Boxes>({ queryKey: ["boxes", kind] }, (data) => patchCached(data, pending.live));
  }
}

/** The first of a burst is shown soon; a storm refreshes once in two seconds. */
const soonMs = 300;
const stormMs = 2000;

let online = false;
const listeners = new Set<() => void>();

/** useOnline tells whether changes arrive by themselves at present. */
export function useOnline(): boolean {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => online,
  );
}

export function startLive(client: QueryClient): void {
  let pending = nothing();
  let due = false;
  let flushed = 0;
  let wasOpen = false;
  const flush = () => {
    due = false;
    flushed = Date.now();
    const batch = pending;
    pending = nothing();
    apply(client, batch);
  };
  listen((message) => {
    if (message.kind === "open") {
      // Announcements made while the stream was down are lost: ask for all.
      if (message.open && wasOpen && !online) client.invalidateQueries();
      wasOpen ||= message.open;
      online = message.open;
      for (const listener of listeners) listener();
      return;
    }
    pending = reduce(pending, message.change);
    if (!due) setTimeout(flush, Math.max(soonMs, flushed + stormMs - Date.now()));
    due = true;
  });
}

function listen(tell: (message: Message) => void): void {
  if (typeof SharedWorker === "undefined") {
    openStream("/api/v1/events", tell);
    return;
  }
  const worker = new SharedWorker(new URL("./events.worker.ts", import.meta.url), {
    type: "module",
    name: "edgeherd-events",
  });
  worker.onerror = () => openStream("/api/v1/events", tell);
  worker.port.onmessage = (event: MessageEvent<Message>) => tell(event.data);
  addEventListener("pagehide", (event) => {
    if (!event.persisted) worker.port.postMessage("bye");
  });
}
