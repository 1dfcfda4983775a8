import { QueryClient } from "@tanstack/react-query";
import { describe, expect, test } from "vitest";
import type { Box, Change, LiveSample } from "../../src/api/generated";
import { apply, nothing, patchBox, patchCached, reduce } from "../../src/api/live";
import { parseChange } from "../../src/api/stream";
import sample from "../sample.json";

const box = sample.boxes[0] as Box;
const later = Date.parse(box.last_seen as string) + 60_000;
const live = (unix_ms: number, values: Record<string, number>): LiveSample => ({
  box: box.id,
  unix_ms,
  values,
  buffer: { ...box.buffer, blocks: 7 },
});

describe("reduce", () => {
  test("announcements are collected by topic", () => {
    const pending = nothing();
    for (const change of [
      { topic: "boxes", id: "d-1" },
      { topic: "rollouts", id: "r-1" },
      { topic: "boxes" },
    ]) {
      reduce(pending, change);
    }
    expect([...pending.topics]).toEqual(["boxes", "rollouts"]);
    expect([...pending.boxes]).toEqual(["d-1"]);
  });
  test("a topic of a newer controller is left alone", () => {
    const pending = reduce(nothing(), { topic: "weather" });
    expect(pending).toEqual(nothing());
  });
  test("of two samples the newer values win, and both sets are kept", () => {
    const pending = nothing();
    reduce(pending, { topic: "live", live: live(later, { a: 1, b: 1 }) });
    reduce(pending, { topic: "live", live: live(later + 5, { a: 2 }) });
    reduce(pending, { topic: "live", live: live(later - 5, { a: 0 }) });
    expect(pending.live.get(box.id)?.values).toEqual({ a: 2, b: 1 });
  });
  test("live without a sample is ignored", () => {
    expect(reduce(nothing(), { topic: "live" } as Change)).toEqual(nothing());
  });
});

describe("patch", () => {
  test("a sample updates values, buffer and when the box was heard", () => {
    const after = patchBox(box, live(later, { temp_die_celsius: 71 }));
    expect(after.latest.temp_die_celsius).toEqual({ value: 71, time: new Date(later).toISOString() });
    expect(after.latest.fan_rpm).toEqual(box.latest.fan_rpm);
    expect(after.buffer.blocks).toBe(7);
    expect(after.last_seen).toBe(new Date(later).toISOString());
    expect(box.buffer.blocks).toBe(0);
  });
  test("an old sample changes nothing", () => {
    expect(patchBox(box, live(later - 3_600_000, { temp_die_celsius: 1 }))).toEqual(box);
  });
  test("all shapes of cached boxes are patched", () => {
    const samples = new Map([[box.id, live(later, { temp_die_celsius: 71 })]]);
    const page = { items: [box], next_page_token: "", total_size: 1 };
    expect(patchCached(box, samples)).toHaveProperty("latest.temp_die_celsius.value", 71);
    expect(patchCached(page, samples)).toHaveProperty("items.0.latest.temp_die_celsius.value", 71);
    expect(patchCached({ pages: [page], pageParams: [""] }, samples)).toHaveProperty(
      "pages.0.items.0.latest.temp_die_celsius.value",
      71,
    );
    expect(patchCached(undefined, samples)).toBeUndefined();
  });
});

test("a change of one box asks again for lists and that box, not for other boxes", () => {
  const client = new QueryClient();
  const keys = [
    ["boxes", "list", "", ""],
    ["boxes", "one", "d-1"],
    ["boxes", "one", "d-2"],
    ["models", "list"],
  ];
  for (const key of keys) client.setQueryData(key, { items: [] });
  apply(client, reduce(nothing(), { topic: "boxes", id: "d-1" }));
  expect(keys.map((key) => client.getQueryState(key)?.isInvalidated)).toEqual([true, true, false, false]);
});

test.each([
  ["", undefined],
  ["{", undefined],
  ["null", undefined],
  ['{"topic":3}', undefined],
  ['{"topic":"boxes"}', { topic: "boxes" }],
])("event data %j", (data, want) => expect(parseChange(data)).toEqual(want));
