// One event stream for all tabs of a browser: HTTP/1.1 allows six connections
// to a host, so a stream per tab would hang the seventh.
import { type Message, openStream } from "./stream";

const ports = new Set<MessagePort>();
let open = false;
let started = false;

function tell(message: Message) {
  if (message.kind === "open") open = message.open;
  for (const port of ports) port.postMessage(message);
}

(self as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = (event) => {
  const port = event.ports[0];
  if (!port) return;
  ports.add(port);
  port.onmessage = (message) => {
    if (message.data === "bye") ports.delete(port);
  };
  port.postMessage({ kind: "open", open } satisfies Message);
  if (!started) {
    started = true;
    openStream("/api/v1/events", tell);
  }
};
