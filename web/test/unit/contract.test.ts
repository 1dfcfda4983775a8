// The pages, the sample data and the controller's description of its API agree.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import openapi from "../../openapi.json";
import { url } from "../../src/api/client";
import type {
  BoxFault,
  Event,
  Model,
  Release,
  Result,
  Session,
  SiteList,
  Summary,
} from "../../src/api/generated";
import { paths } from "../../src/api/queries";
import { languages } from "../../src/i18n";
import en from "../../src/i18n/en.json";
import { reportOf } from "../../src/pages/acceptances";
import { columnsOf } from "../../src/pages/columns";
import { spanOf } from "../../src/pages/span";
import sample from "../sample.json";
import { faults } from "./schema";

// Checked by the compiler: the sample conforms to the generated types. Boxes and
// rollouts hold maps, which JSON imports type too narrowly; the test below checks them.
sample.summary satisfies Summary;
sample.session satisfies Session;
sample.models satisfies Model[];
sample.releases satisfies Release[];
sample.results satisfies Result[];
sample.events satisfies Event[];
sample.faults satisfies BoxFault[];
sample.sites satisfies SiteList;

test("every path that the pages use is in the API", () => {
  const known = Object.keys(openapi.paths);
  expect(Object.values(paths).filter((path) => !known.includes(path))).toEqual([]);
});

test.each([
  ["Box", sample.boxes],
  ["Rollout", sample.rollouts],
  ["Model", sample.models],
  ["Release", sample.releases],
  ["Result", sample.results],
  ["Event", sample.events],
  ["BoxIdentity", [sample.identity]],
  ["Summary", [sample.summary]],
  ["Session", [sample.session]],
  ["SiteList", [sample.sites]],
  ["TrustRoles", [sample.trust]],
  ["AcceptanceList", [{ items: sample.acceptances }]],
])("the sample's %s has the fields that the controller sends", (name, values) => {
  expect(values.flatMap((value, i) => faults(value, name, `${name}[${i}]`))).toEqual([]);
});

test("addresses are escaped and empty values left out", () => {
  expect(url(paths.box, { id: "a/b" })).toBe("/api/v1/boxes/a%2Fb");
  expect(url(paths.boxes, {}, { filter: 'site = "ä"', order_by: "", page_size: 5 })).toBe(
    "/api/v1/boxes?filter=site+%3D+%22%C3%A4%22&page_size=5",
  );
});

test("reports are asked for in a language that the controller writes", () => {
  const path = openapi.paths[paths.boxAcceptancePDF].get;
  const langs = path.parameters.find((p) => p.name === "lang")?.schema.enum ?? [];
  expect(Object.keys(languages).filter((lang) => !langs.includes(lang))).toEqual([]);
  expect(reportOf("d-a", "0f1e", "pdf", "de")).toBe("/api/v1/boxes/d-a/acceptance/0f1e/pdf?lang=de");
  expect(reportOf("d-a", "0f1e", "html", "zh")).toBe("/api/v1/boxes/d-a/acceptance/0f1e/html?lang=zh");
});

test("every event that the page of a box shows has its word", () => {
  const wire = readFileSync(new URL("../../../internal/wire/wire.go", import.meta.url), "utf8");
  const types = [...wire.matchAll(/^\tEvent\w+ += "([a-z.]+)"/gm)].map((m) => m[1] as string);
  const words = types.filter((type) => type !== "health.hours").map((type) => type.replace(".", "-"));
  expect(Object.keys(en.event).sort()).toEqual(words.sort());
});

test("every verdict and level has its word", () => {
  const { verdict } = openapi.components.schemas.Acceptance.properties;
  const { levels } = openapi.components.schemas.StartAcceptance.properties;
  expect(Object.keys(en.verdict).sort()).toEqual([...verdict.enum].sort());
  expect(Object.keys(en.acceptance.level).sort()).toEqual([...levels.items.enum].sort());
});

describe("chart columns", () => {
  const point = (t: number, v: number, n = 1) => ({ t, min: v - 1, median: v, max: v + 1, n });
  const series = (step_seconds: number, points: ReturnType<typeof point>[]) => ({
    metric: "m",
    from: "",
    to: "",
    step_seconds,
    points,
  });
  test("values are scaled and the line breaks where points are missing", () => {
    const c = columnsOf(series(60, [point(0, 2), point(60_000, 3), point(600_000, 4)]), 10);
    expect(c.data[0]).toEqual([0, 60, 330, 600]);
    expect(c.data[3]).toEqual([20, 30, null, 40]);
    expect([c.min, c.max, c.last, c.count]).toEqual([10, 50, 40, 3]);
  });
  test("a box that reports less often than once per bucket is no row of gaps", () => {
    const c = columnsOf(
      series(
        2,
        [0, 1, 2, 3].map((i) => point(i * 60_000, i)),
      ),
      1,
    );
    expect(c.data[3]).toEqual([0, 1, 2, 3]);
  });
  test("no series and empty buckets give nothing to draw", () => {
    expect(columnsOf(undefined, 1).count).toBe(0);
    expect(columnsOf(series(60, [point(0, 0, 0)]), 1).count).toBe(0);
  });
});

test("a range in the address wins; nonsense falls back to an hour", () => {
  const zoomed = spanOf({ from: "2026-01-15T10:00:00Z", to: "2026-01-15T11:00:00Z", t: "7d" });
  expect(zoomed.range().to.toISOString()).toBe("2026-01-15T11:00:00.000Z");
  expect(zoomed.refresh).toBe(false);
  expect(spanOf({ from: "2026-01-15T11:00:00Z", to: "2026-01-15T10:00:00Z" }).key).toBe("1h");
  expect(spanOf({ t: "9y" }).key).toBe("1h");
  const week = spanOf({ t: "7d" }).range();
  expect(week.to.getTime() - week.from.getTime()).toBe(604_800_000);
});
