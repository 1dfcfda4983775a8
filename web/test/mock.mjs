// A stand-in for the controller, for development and the browser test: serves
// the built pages and the sample data with the headers of the real server.
// Sample times are moved so that "now" is the time of the request.
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { answerCare } from "./mockcare.mjs";
import { answerPeople } from "./mockpeople.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "../../controller/api/web/dist");
const sample = JSON.parse(readFileSync(join(here, "sample.json"), "utf8"));
const base = Date.parse(sample.base);

/** Boxes that came back to a restored controller and follow what it never signed. */
const restores = {
  awaiting_reconnect: 1,
  restored: sample.rollouts[0]?.created,
  conflicts: sample.boxes.slice(0, 2).map((b) => ({
    box: b.id,
    name: b.name,
    site: b.site,
    follows: 9,
    signed: 7,
    runs: ["ocr-det:4.1.0"],
    wished: ["ocr-det:4.0.0"],
  })),
};

const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};

/** shift moves every time in value by as much as the sample is old. */
function shift(value, key = "") {
  const by = Date.now() - base;
  if (typeof value === "string" && /^\d{4}-\d\d-\d\dT.*Z$/.test(value)) {
    return new Date(Date.parse(value) + by).toISOString();
  }
  if (typeof value === "string" && /^(.*since )?\d{4}-\d\d-\d\d$/.test(value)) {
    const day = value.slice(-10);
    return value.slice(0, -10) + new Date(Date.parse(day) + by).toISOString().slice(0, 10);
  }
  if (typeof value === "number" && key.endsWith("unix_ms") && value > 0) return value + by;
  if (Array.isArray(value)) return value.map((v) => shift(v));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shift(v, k)]));
  }
  return value;
}

// Enough of AIP-160 for the page's own filters: terms joined by AND.
function matcher(filter) {
  const terms = filter.split(/\s+AND\s+/).filter(Boolean);
  const tests = terms.map((term) => {
    const m = /^(NOT\s+)?(\w+)\s*(=|:|>|<)\s*"?([^"]*)"?$/.exec(term.trim());
    if (!m) return undefined;
    const [, not, field, op, want] = m;
    return (box) => {
      const got =
        field === "temp_die"
          ? box.latest.temp_die_celsius?.value
          : field === "model"
            ? box.models.map((b) => `${b.name}:${b.running_version}`).join(" ")
            : field === "label"
              ? Object.entries(box.labels ?? {})
                  .map(([k, v]) => `${k}=${v}`)
                  .join(" ")
              : field === "cause"
                ? box.thermal.causes.join(" ")
                : String(field === "class" ? box.inventory.class : box[field]);
      const holds =
        op === "=" ? got === want : op === ":" ? got.includes(want) : op === ">" ? got > +want : got < +want;
      return not ? !holds : holds;
    };
  });
  return tests.includes(undefined) ? undefined : (box) => tests.every((test) => test(box));
}

function sorted(boxes, order) {
  const [field = "name", direction] = order.split(" ");
  const of = (box) =>
    field === "temp_die"
      ? (box.latest.temp_die_celsius?.value ?? -1)
      : field === "resistance"
        ? box.thermal.resistance_percent
        : String(box[field] ?? "");
  const sign = direction === "desc" ? -1 : 1;
  return [...boxes].sort((a, b) => (of(a) < of(b) ? -sign : of(a) > of(b) ? sign : 0));
}

function seriesOf(query) {
  const from = Date.parse(query.get("from"));
  const to = Date.parse(query.get("to"));
  const points = Number(query.get("points") ?? 400);
  const step = Math.max(60_000, (to - from) / points);
  const wave = (t, period) => Math.sin((t / period) * 2 * Math.PI);
  const noise = (t) => (Math.sin(t * 12.9898) * 43758.5453) % 1;
  const make = {
    temp_die_celsius: (t) => 62 + 9 * wave(t, 3_600_000) + noise(t),
    thermal_resistance_kelvin_per_watt: (t) => 1.4 + ((t / 864e5) % 1) * 0.3 + 0.01 * noise(t),
    fan_rpm: (t) => 2600 + 700 * wave(t, 3_600_000) + 40 * noise(t),
    power_watts: (t) => 18 + 4 * wave(t, 3_600_000) + noise(t),
    inference_latency_seconds: (t) => 0.11 + 0.02 * noise(t),
    cpu_freq_hertz: (t) => 2.9e9 - (wave(t, 3_600_000) > 0.9 ? 9e8 : 0) + 2e7 * noise(t),
  };
  const series = (query.get("metrics") ?? "").split(",").map((metric) => {
    const values = [];
    for (let t = from; make[metric] && t < to; t += step) {
      // An outage, so that a gap can be seen.
      if ((t - from) / (to - from) > 0.3 && (t - from) / (to - from) < 0.36) continue;
      const v = make[metric](t);
      values.push({ t: Math.round(t), min: v * 0.97, median: v, max: v * 1.03, n: 3 });
    }
    return {
      metric,
      from: query.get("from"),
      to: query.get("to"),
      step_seconds: step / 1000,
      points: values,
    };
  });
  const marks = [
    { t: Math.round(from + (to - from) * 0.36), type: "box.started", text: "agent 0.1.0 started" },
    { t: Math.round(from + (to - from) * 0.7), type: "model.phase", text: "ocr-rec:5.0.0 active" },
  ];
  return { series, marks };
}

class Refused extends Error {
  constructor(status, detail, hint) {
    super(detail);
    this.status = status;
    this.hint = hint;
  }
}

const found = (value) => {
  if (!value) throw new Refused(404, "no such thing");
  return shift(value);
};

/** boxList leaves out what the controller tells of one box alone. */
function boxList(query) {
  const match = matcher(query.get("filter") ?? "");
  if (!match) throw new Refused(400, `filter "${query.get("filter")}": unexpected text`, "texts are quoted");
  const all = sorted(sample.boxes.filter(match), query.get("order_by") ?? "");
  const size = Number(query.get("page_size") || 100);
  const start = Number(query.get("page_token") || 0);
  return shift({
    items: all.slice(start, start + size).map(({ shunned, ...box }) => box),
    next_page_token: start + size < all.length ? String(start + size) : "",
    total_size: all.length,
  });
}

/** rolloutList counts boxes in place of naming them, as the controller does. */
function rolloutList(query) {
  const size = Number(query.get("page_size") ?? 100);
  const start = Number(query.get("page_token") ?? 0);
  const all = sample.rollouts.map((r) => ({ ...r, waves: r.waves.map((w) => ({ ...w, targets: [] })) }));
  return shift({
    items: all.slice(start, start + size),
    next_page_token: start + size < all.length ? String(start + size) : "",
    total_size: all.length,
  });
}

function act(rollout, action) {
  const state = {
    start: "running",
    pause: "paused",
    resume: "running",
    approve: rollout.state,
    rollback: rollout.state === "running" ? "canceled" : rollout.state,
    cancel: "canceled",
  }[action];
  if (!state) throw new Refused(422, `no action ${action}`);
  if (action === "approve")
    for (const wave of rollout.waves)
      if (wave.state === "waiting") for (const key of ["reason", "reason_said"]) delete wave[key];
  if (action === "rollback") rollout.rolled_back_by = ["r-z7y6x5w4v3"];
  rollout.state = state;
  delete rollout.sentence_said;
  rollout.sentence = `${action[0].toUpperCase()}${action.slice(1)}: asked by the mock server`;
  tell({ topic: "rollouts", id: rollout.id });
  return shift(rollout);
}

// As the controller does it, as far as the page's own test goes.
function changeSite(name, { set, unset = [] }) {
  if (set.time_zone && !/^(UTC|\w+\/\w+)$/.test(set.time_zone)) {
    throw new Refused(
      422,
      `time_zone "${set.time_zone}" is not an IANA time zone`,
      "Correct it and try again.",
    );
  }
  const site = name ? sample.sites.items.find((s) => s.name === name) : sample.sites.defaults;
  for (const key of unset) delete site.settings[key];
  Object.assign(site.settings, set);
  const built = { backlog_bytes_per_second: 0, quiet: [], time_zone: "UTC" };
  for (const s of [sample.sites.defaults, ...sample.sites.items]) {
    s.effect = { ...built, ...sample.sites.defaults.settings, ...s.settings };
  }
  tell({ topic: "sites", id: name });
  return shift(found(site));
}

const watchers = new Set();
const tell = (change) => {
  for (const w of watchers) w.write(`event: change\ndata: ${JSON.stringify(change)}\n\n`);
};

// Times of the sample are moved when they are sent; what happens now is moved back.
const now = () => sample.base;

function answer(path, query, body) {
  const refuse = (status, detail, hint) => new Refused(status, detail, hint);
  const care = answerCare(path, query, body, { sample, shift, refuse, tell, now });
  if (care !== undefined) return care;
  const people = answerPeople(path, query, body, { shift, refuse, now });
  if (people !== undefined) return people;
  const [, kind, id, part] = /^\/api\/v1\/([\w-]+)(?:\/([^/]+))?(?:\/(\w+))?$/.exec(path) ?? [];
  if (kind === "session" || kind === "summary") return shift(sample[kind]);
  if (path === "/api/v1/trust/roles") return shift(sample.trust);
  if (kind === "models" || kind === "releases") return shift({ items: sample[kind] });
  if (kind === "sites" && !id) return shift(sample.sites);
  if (kind === "sites") return changeSite(decodeURIComponent(id), body);
  if (kind === "site-defaults") return changeSite("", body);
  if (kind === "restores") {
    if (body?.choice)
      restores.conflicts = body.filter ? restores.conflicts.filter((c) => !body.filter.includes(c.box)) : [];
    return shift(restores);
  }
  if (kind === "rollouts") {
    if (!id) return rolloutList(query);
    const rollout = sample.rollouts.find((r) => r.id === id);
    return part === "actions" && rollout ? act(rollout, body.action) : found(rollout);
  }
  if (kind === "boxes" && !id) return boxList(query);
  if (kind === "boxes" && part === "series") return seriesOf(query);
  if (kind === "boxes" && part === "acceptance") {
    const tested = sample.boxes[0].id === id;
    return shift({ items: tested ? sample.acceptances : [] });
  }
  if (kind === "boxes" && part === "identity") {
    const box = sample.boxes.find((b) => b.id === id);
    return shift({ ...sample.identity, box: id, name: box?.name, site: box?.site, labels: box?.labels });
  }
  if (kind === "boxes" && part === "faults") {
    const troubled = sample.boxes.find((b) => b.link === "silent")?.id === id;
    return shift({ items: troubled ? sample.faults : [] });
  }
  if (kind === "boxes" && part) return shift({ items: sample[part] });
  if (kind === "boxes") return found(sample.boxes.find((b) => b.id === id));
  throw new Refused(404, `no route ${path}`);
}

const policy = "default-src 'self'; frame-ancestors 'none'";

function serveFile(path, response) {
  let file = join(dist, normalize(path));
  if (!file.startsWith(dist) || !existsSync(file) || statSync(file).isDirectory()) {
    file = join(dist, "index.html");
  }
  response.writeHead(200, {
    "Content-Type": types[extname(file)] ?? "application/octet-stream",
    "Content-Security-Policy": policy,
  });
  createReadStream(file).pipe(response);
}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return parts.length > 0 ? JSON.parse(Buffer.concat(parts).toString()) : undefined;
}

/** startMock listens on a free port of this machine, unless one is given. */
export async function startMock({ port = 0, signedOut = false } = {}) {
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://mock");
    if (!pathname.startsWith("/api/")) return serveFile(pathname, response);
    if (pathname === "/api/v1/events" && !signedOut) {
      response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
      response.write("retry: 3000\n\n");
      watchers.add(response);
      request.on("close", () => watchers.delete(response));
      return;
    }
    let status = 200;
    let value;
    try {
      if (signedOut && pathname !== "/api/v1/sign-in") throw new Refused(401, "no session");
      value = answer(pathname, searchParams, await read(request));
    } catch (err) {
      status = err.status ?? 500;
      value = { status, title: "Refused", detail: err.message, hint: err.hint };
    }
    const type = status === 200 ? "application/json" : "application/problem+json";
    response.writeHead(status, { "Content-Type": type, "Cache-Control": "no-store" });
    response.end(JSON.stringify(value));
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  // A watched box measures something every two seconds.
  const timer = setInterval(() => {
    const box = sample.boxes[0];
    const values = { temp_die_celsius: 55 + Math.random() * 4, fan_rpm: 2500 + Math.random() * 200 };
    tell({ topic: "live", live: { box: box.id, unix_ms: Date.now(), values, buffer: box.buffer } });
  }, 2000);
  const { port: bound } = server.address();
  return {
    url: `http://127.0.0.1:${bound}`,
    tell,
    close: () => {
      clearInterval(timer);
      server.closeAllConnections();
      server.close();
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock({ port: Number(process.env.PORT ?? 8099) });
  console.log(`mock controller: ${mock.url}`);
}
