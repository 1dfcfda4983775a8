// What the pages of tickets and health compute for themselves.
import { describe, expect, test } from "vitest";
import openapi from "../../openapi.json";
import { carePaths } from "../../src/api/care";
import type { BoxCare, CareDay, Ticket, TicketAction } from "../../src/api/generated";
import { signedPercent } from "../../src/format";
import { fillOf, levelSteps, steps } from "../../src/hostmap/ramp";
import en from "../../src/i18n/en.json";
import { linesOf as curve, scaleOf } from "../../src/pages/resistance";
import { stepsOf } from "../../src/pages/ticket";
import { actionsOf, bodyOf, type Form } from "../../src/pages/ticketactions";
import { ended, filterOf, ranked, ticketStates } from "../../src/pages/ticketfilter";
import { installedAt } from "../../src/pages/upkeepcard";
import { linesOf } from "../../src/pages/visit";
import { usual, workKinds, worksOf } from "../../src/pages/work";
import { colourOf, fromNow, newest, where } from "../../src/ui/forecast";
import { careOf } from "../mockcare.mjs";
import sample from "../sample.json";
import { faults } from "./schema";

test("every path of tickets and health is in the API", () => {
  const known = Object.keys(openapi.paths);
  expect(Object.values(carePaths).filter((path) => !known.includes(path))).toEqual([]);
});

test.each([
  ["Ticket", sample.care.tickets],
  ["Visit", sample.care.visits],
  ["SiteCare", sample.care.sites],
  ["CareReport", [sample.care.report]],
  ["Reset", sample.care.resets],
  ["BoxCare", sample.boxes.map((box) => careOf(box, sample))],
])("the sample's %s has the fields that the controller sends", (name, values) => {
  expect(values.flatMap((value, i) => faults(value, name, `${name}[${i}]`))).toEqual([]);
});

describe("filters of tickets", () => {
  test.each([
    [{}, "open = true"],
    [{ state: "due" }, "due = true"],
    [{ state: "all" }, ""],
    [{ state: "all", cause: "airflow" }, 'cause = "airflow"'],
    [{ state: "on-site", level: "urgent" }, 'state = "on-site" AND level = "urgent"'],
    [{ site: 'a "b" \\' }, String.raw`open = true AND site = "a \"b\" \\"`],
  ])("%j is %s", (search, filter) => expect(filterOf(search)).toBe(filter));
  test("counts are ranked, the largest first", () => {
    expect(ranked({ b: 1, a: 1, c: 7 })).toEqual([
      ["c", 7],
      ["a", 1],
      ["b", 1],
    ]);
  });
});

describe("actions", () => {
  const form: Form = {
    assignee: " Kim ",
    note: "",
    resolution: "accepted",
    mute: "30",
    noFault: false,
    lines: [
      { box: "a", kind: "cleaned", part: " F-120 " },
      { box: "b", kind: "", part: "lost" },
    ],
  };
  test("every state offers actions that the API knows", () => {
    const schema = openapi.components.schemas.TicketAction.properties.action.enum;
    for (const state of ticketStates) {
      expect(actionsOf(state).filter((action) => !schema.includes(action))).toEqual([]);
      expect(actionsOf(state).includes("reopen")).toBe(ended(state) || state === "done");
    }
    expect(actionsOf("of a newer controller")).toEqual(["note"]);
  });
  test.each([
    ["acknowledge", {}],
    ["assign", { assignee: "Kim" }],
    ["done", { work: [{ box: "a", kind: "cleaned", part: "F-120" }] }],
    ["close", { resolution: "accepted", mute_days: 30 }],
  ])("%s sends only what belongs to it", (action, rest) => {
    expect(bodyOf(action as TicketAction["action"], form)).toEqual({ action, ...rest });
  });
  test("a duplicate mutes nothing", () => {
    expect(bodyOf("close", { ...form, resolution: "duplicate", note: " see T-1 " })).toEqual({
      action: "close",
      resolution: "duplicate",
      note: "see T-1",
    });
  });
  test("the kinds of work are those of the API and have words", () => {
    expect([...workKinds].sort()).toEqual([...openapi.components.schemas.Work.properties.kind.enum].sort());
    expect(workKinds.filter((kind) => !(kind in en.work))).toEqual([]);
    expect(Object.values(usual).filter((kind) => !(workKinds as readonly string[]).includes(kind))).toEqual(
      [],
    );
    expect(worksOf([{ box: "", kind: "moved", part: "" }])).toEqual([{ kind: "moved" }]);
  });
  test("a visit asks once for a box with two tickets, and for no box of a site's ticket", () => {
    const [a, b] = sample.care.tickets as unknown as [Ticket, Ticket];
    const room = { ...a, box_name: undefined };
    expect(linesOf([a, { ...b, box_name: a.box_name }, room]).map((l) => l.box)).toEqual([a.box_name]);
  });
});

test("the steps of a ticket mark where it is; one that came back is at the first", () => {
  const of = (state: string, extra = {}) =>
    stepsOf({ ...(sample.care.tickets[0] as unknown as Ticket), state, ...extra } as Ticket);
  expect(of("dispatched").find((s) => s.now)?.state).toBe("dispatched");
  expect(of("reopened").find((s) => s.now)?.state).toBe("open");
  expect(of("closed", { closed: "2026-01-15T12:00:00Z" }).at(-1)?.state).toBe("closed");
  expect(of("open").at(-1)?.state).toBe("verified");
});

describe("forecast", () => {
  test("places run from today to a year and only rise", () => {
    const places = [-3, 0, 1, 7, 30, 90, 364, 365, 4000].map(where);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect([places[0], places.at(-1)]).toEqual([0, 1]);
  });
  const made = (day: number, low: number, high: number) => ({
    made: `2026-01-${String(day).padStart(2, "0")}T00:00:00Z`,
    low_days: low,
    mid_days: (low + high) / 2,
    high_days: high,
    trip_celsius: 95,
    trip_known: true,
  });
  test("days are counted from now, and beyond a year stays beyond", () => {
    const at = Date.parse("2026-01-11T00:00:00Z");
    expect(fromNow(made(1, 4, 40), at)).toMatchObject({ low_days: 0, mid_days: 12, high_days: 30 });
    expect(fromNow(made(1, 40, 365), at)).toMatchObject({ low_days: 30, high_days: 365 });
    expect(fromNow(made(20, 4, 40), at)).toMatchObject({ low_days: 4, high_days: 40 });
  });
  test("the newest of two forecasts is shown", () => {
    expect(newest(made(1, 4, 40), undefined, made(3, 9, 10))?.low_days).toBe(9);
    expect(newest(undefined)).toBeUndefined();
  });
  test("the colour is that of the earliest day", () => {
    expect([0, 7, 8, 21, 22].map(colourOf)).toEqual(["hot", "hot", "warm", "warm", "busy"]);
  });
});

describe("course of the resistance", () => {
  const day = (day: string, week?: number): CareDay => ({
    day,
    steady_hours: 9,
    ...(week !== undefined && { week_percent: week, resistance_percent: week }),
  });
  const days = [day("2026-01-01", 0), day("2026-01-02", 1), day("2026-01-03"), day("2026-01-10", 22)];
  test("all values fit, and a clean box is not drawn as a storm", () => {
    expect(scaleOf(days, 400)).toMatchObject({ low: -5, high: 25 });
    expect(scaleOf([day("2026-01-01", 0.3)], 400)).toMatchObject({ low: -5, high: 10 });
  });
  test("the line breaks where days are missing", () => {
    const scale = scaleOf(days, 400);
    expect(curve(days, scale)).toHaveLength(1);
    expect(curve([...days, day("2026-01-11", 23)], scaleOf(days, 400))).toHaveLength(2);
  });
});

test("an unchanged day of a filter keeps its moment", () => {
  expect(installedAt("2026-01-11", "2026-01-11T09:30:00Z")).toBe("2026-01-11T09:30:00Z");
  expect(installedAt("2026-01-12", "2026-01-11T09:30:00Z")).toBe("2026-01-12T00:00:00Z");
});

test("colours of the map: what the address does not know is the temperature", () => {
  expect(["resistance", "level", "x", undefined].map(fillOf)).toEqual([
    "resistance",
    "level",
    "temp",
    "temp",
  ]);
  expect(Object.values(levelSteps).every((step) => step < steps)).toBe(true);
  expect([signedPercent(0, "en"), signedPercent(6.04, "de"), signedPercent(-2.5, "en")]).toEqual([
    "0 %",
    "+6 %",
    "-2.5 %",
  ]);
});

// Words for every value that the controller and the agents have today.
test("causes, restarts, states and steps have words", () => {
  const care = sample.boxes.map((box) => careOf(box, sample)) as BoxCare[];
  const causes = care.flatMap((c) => c.findings.map((f) => f.cause));
  expect(causes.filter((cause) => !(cause in en.heatCause) || !(cause in en.todo))).toEqual([]);
  expect(Object.keys(sample.care.report.resets).filter((cause) => !(cause in en.reset))).toEqual([]);
  expect(ticketStates.filter((state) => !(state in en.ticketState))).toEqual([]);
  const whats = sample.care.tickets.flatMap((t) => t.timeline.map((s) => s.what.replaceAll(" ", "-")));
  expect(whats.filter((what) => !(what in en.step))).toEqual([]);
});
