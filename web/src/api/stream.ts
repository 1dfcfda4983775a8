// One EventSource with a report of whether it is open. Runs in the shared
// worker, or in the page where there are no shared workers.
import type { Change } from "./generated";

/** Message is what the stream tells a page. */
export type Message = { kind: "open"; open: boolean } | { kind: "change"; change: Change };

/** A browser gives up on an EventSource that was answered with an error. */
const retryMs = 5000;

export function openStream(address: string, tell: (message: Message) => void): () => void {
  let source: EventSource;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const connect = () => {
    source = new EventSource(address);
    source.onopen = () => tell({ kind: "open", open: true });
    source.onerror = () => {
      tell({ kind: "open", open: false });
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, retryMs);
    };
    source.addEventListener("change", (event) => {
      const change = parseChange((event as MessageEvent<string>).data);
      if (change) tell({ kind: "change", change });
    });
  };
  connect();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}

/** parseChange reads an event's data; what it cannot read is undefined. */
export function parseChange(data: string): Change | undefined {
  try {
    const value = JSON.parse(data);
    return typeof value?.topic === "string" ? (value as Change) : undefined;
  } catch {
    return undefined;
  }
}
