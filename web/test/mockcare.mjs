// The mock controller's tickets, visits and health of boxes: as the real one
// does it, as far as the pages' own test goes.

/** @typedef {{sample: any, shift: (value: any) => any, refuse: (status: number, detail: string, hint?: string) => Error, tell: (change: object) => void, now: () => string}} World */

const due = (t) => ["open", "reopened", "acknowledged"].includes(t.state) && t.level !== "watch";
const ended = (t) => ["verified", "closed"].includes(t.state);

const fields = {
  open: (t) => String(!ended(t)),
  due: (t) => String(due(t)),
  number: (t) => Number(t.id.slice(2)),
  low_days: (t) => t.forecast?.low_days,
};
const fieldOf = (t, field) => (fields[field] ? fields[field](t) : t[field]);

function tally(items, key) {
  const counts = {};
  for (const item of items) counts[item[key]] = (counts[item[key]] ?? 0) + 1;
  return counts;
}

function matching(tickets, filter, refuse) {
  const terms = filter.split(/\s+AND\s+/).filter(Boolean);
  return terms.reduce((left, term) => {
    const m = /^(\w+)\s*=\s*"?([^"]*)"?$/.exec(term);
    if (!m) throw refuse(400, `filter "${filter}": unexpected text`);
    return left.filter((t) => String(fieldOf(t, m[1]) ?? "") === m[2]);
  }, tickets);
}

function sorted(tickets, order) {
  const [field, direction] = order.split(" ");
  const sign = direction === "desc" ? -1 : 1;
  const of = (t) => fieldOf(t, field);
  return [...tickets].sort((a, b) => {
    if (of(a) === undefined || of(b) === undefined) return (of(a) === undefined) - (of(b) === undefined);
    return of(a) < of(b) ? -sign : of(a) > of(b) ? sign : 0;
  });
}

const led = {
  acknowledge: "acknowledged",
  assign: "dispatched",
  arrive: "on-site",
  done: "done",
  reopen: "reopened",
  close: "closed",
};

function actOnTicket(ticket, body, { shift, refuse, tell, now }) {
  const stamp = { acknowledge: "acknowledged", assign: "dispatched", arrive: "on_site", done: "done" };
  if (body.action === "close" && !body.resolution) throw refuse(409, "close does not say why");
  if (led[body.action]) ticket.state = led[body.action];
  if (stamp[body.action]) ticket[stamp[body.action]] = now();
  if (body.assignee) ticket.assignee = body.assignee;
  if (body.resolution) Object.assign(ticket, { resolution: body.resolution, closed: now() });
  const what = body.action === "note" ? "note" : ticket.state.replace("-", " ");
  const text = [body.note, ...(body.work ?? []).map((w) => w.kind)].filter(Boolean).join("; ");
  ticket.timeline.push({ time: now(), by: "admin", what, state: ticket.state, text });
  tell({ topic: "tickets", id: ticket.id });
  return shift(ticket);
}

function makeVisit(site, body, { sample, tell, now }) {
  const { tickets, visits } = sample.care;
  const id = `V-${visits.length + 10}`;
  const taken = tickets.filter((t) => t.site === site && due(t));
  for (const t of taken) {
    Object.assign(t, { state: "dispatched", visit: id, dispatched: now(), assignee: body.assignee });
  }
  const visit = {
    id,
    state: "planned",
    site,
    day: sample.base.slice(0, 10),
    assignee: body.assignee ?? "",
    tickets: taken.map((t) => t.id),
    parts: [],
    work: [],
    created: now(),
  };
  visits.unshift(visit);
  const care = sample.care.sites.find((s) => s.site === site);
  if (care) Object.assign(care, { due: 0, visit_due: false, next_visit: id, next_day: visit.day });
  tell({ topic: "visits", id });
  return visit;
}

function plan(body, world) {
  const { sample, shift } = world;
  const stops = sample.care.plan.stops
    .map((s) => ({ ...s, tickets: sample.care.tickets.filter((t) => s.tickets.includes(t.id) && due(t)) }))
    .filter((s) => s.tickets.length > 0);
  const made = body.keep ? stops.map((s) => makeVisit(s.site, body, world)) : [];
  return shift({ ...sample.care.plan, stops, made });
}

/** daysOf draws 64 days of a box that clogs from clean to percent. */
function daysOf(percent, base) {
  const out = [];
  let week = [];
  for (let i = 64; i > 0; i--) {
    const day = new Date(base - i * 86_400_000).toISOString().slice(0, 10);
    const noise = (Math.sin(i * 12.9898) * 43758.5453) % 1;
    const value = percent * ((64 - i) / 64) ** 2 + noise;
    if (i > 30 && i < 35) {
      out.push({ day, steady_hours: 0 }); // a holiday: the box was off
      continue;
    }
    week = [...week, value].slice(-7);
    const median = [...week].sort((a, b) => a - b)[week.length >> 1];
    out.push({
      day,
      steady_hours: 14,
      resistance_percent: Math.round(value * 10) / 10,
      ...(week.length > 3 && { week_percent: Math.round(median * 10) / 10 }),
    });
  }
  return out;
}

/** careOf is all of one box, of its tickets and restarts. */
export function careOf(box, sample) {
  const tickets = sample.care.tickets.filter((t) => t.box === box.id);
  const findings = tickets
    .filter((t) => !t.manual)
    .map((t) => ({
      family: t.families[0] ?? "resistance",
      cause: t.cause,
      level: t.level,
      confidence: t.confidence,
      since: t.since,
      opened: t.opened,
      evidence: t.evidence,
      ...(t.forecast && { forecast: t.forecast }),
      ...(t.families.length === 0 && {
        closed: t.done ?? t.closed,
        closed_by: "half of the line for 5 days",
      }),
    }));
  const base = Date.parse(sample.base);
  const at = (days) => new Date(base - days * 86_400_000).toISOString().replace(".000Z", "Z");
  const { known, resistance_percent: percent } = box.thermal;
  const site = sample.care.sites.find((s) => s.site === box.site);
  return {
    box: box.id,
    name: box.name,
    site: box.site,
    level: box.health,
    thermal: box.thermal,
    findings,
    tickets,
    days: known ? daysOf(percent, base) : [],
    ...(tickets[0]?.forecast && { forecast: tickets[0].forecast }),
    changes: known
      ? [
          { time: at(41), kind: "filter-installed", detail: "F-120", by: "Kim Nowak" },
          { time: at(17), kind: "rollout", detail: "ocr-rec:5.0.0" },
        ]
      : [],
    resets: sample.care.resets.filter((r) => r.box === box.id),
    cleanings: known ? [{ time: at(41), before_percent: 9.4, after_percent: 0.6, logged: true }] : [],
    upkeep: known ? { place: "stock room, north wall", filter_part: "F-120", filter_installed: at(41) } : {},
    filter: { ...site.filter, ...(known && { due: at(41 - site.filter.interval_days) }) },
    ...(known && {
      cohort: {
        kind: "sku",
        name: `${box.inventory.vendor} ${box.inventory.product}`,
        boxes: 12,
        median_percent: 2.4,
        spread_percent: 3.1,
        percent,
        score: (percent - 2.4) / 3.1,
      },
    }),
  };
}

/** answerCare serves /tickets, /visits, /rmas, /care, /notify, /resets and /boxes/{id}/care; undefined: not one of these. */
export function answerCare(path, query, body, world) {
  const { sample, shift, refuse } = world;
  const { care } = sample;
  const [, kind, verb, id, part] = /^\/api\/v1\/([\w-]+)(:\w+)?(?:\/([^/]+))?(?:\/(\w+))?$/.exec(path) ?? [];
  const found = (value) => {
    if (!value) throw refuse(404, "no such thing");
    return value;
  };
  if (kind === "boxes" && part === "care") {
    const box = found(sample.boxes.find((b) => b.id === id));
    const upkeep = body && { upkeep: body };
    return shift({ ...careOf(box, sample), ...upkeep });
  }
  if (kind === "care") return shift(id === "sites" ? { items: care.sites } : care.report);
  if (kind === "notify") {
    return {
      items: Object.entries(care.report.notify)
        .filter(([name]) => !body.endpoint || name === body.endpoint)
        .map(([endpoint, state]) => ({
          endpoint,
          kind: state.kind,
          ok: !state.last_error,
          error: state.last_error,
        })),
    };
  }
  if (kind === "rmas") {
    if (!body) return shift({ items: care.rmas });
    if (!id) {
      const rma = { id: `R-${care.rmas.length + 1}`, state: "open", opened: world.now(), ...body };
      care.rmas.unshift(rma);
      return shift(rma);
    }
    const rma = found(care.rmas.find((r) => r.id === id));
    const { action, ...rest } = body;
    const state = { close: "closed" }[action] ?? action;
    return shift(Object.assign(rma, rest, { state, [state]: world.now() }));
  }
  if (kind === "resets") {
    return shift({ items: care.resets, causes: care.report.resets, from: care.report.from });
  }
  if (kind === "tickets") {
    if (id) {
      const ticket = found(care.tickets.find((t) => t.id === id));
      return part ? actOnTicket(ticket, body, world) : shift(ticket);
    }
    const all = matching(care.tickets, query.get("filter") ?? "", refuse);
    const open = all.filter((t) => !ended(t));
    if (verb) {
      return {
        total: all.length,
        open: open.length,
        due: all.filter(due).length,
        states: tally(all, "state"),
        levels: tally(open, "level"),
        causes: tally(open, "cause"),
        sites: tally(open, "site"),
      };
    }
    const items = sorted(all, query.get("order_by") || "number desc");
    return shift({ items, next_page_token: "", total_size: items.length });
  }
  if (kind !== "visits") return undefined;
  if (verb) return plan(body, world);
  if (!id && body) return shift(makeVisit(body.site, body, world));
  if (!id) return shift({ items: care.visits.filter((v) => ["planned", "on-site"].includes(v.state)) });
  const visit = found(care.visits.find((v) => v.id === id));
  visit.state = { arrive: "on-site", done: "done", cancel: "canceled" }[body.action];
  world.tell({ topic: "visits", id });
  return shift(visit);
}
