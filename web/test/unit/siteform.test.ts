// The form of a site: what is typed becomes one request, and only for what changed.
import { expect, test } from "vitest";
import { changeOf, draftOf } from "../../src/pages/siteform";

test("what is shown and not touched is sent back as it was", () => {
  const was = {
    backlog_bytes_per_second: 1500,
    quiet: ["08:00-18:00 mon-fri", "22:00-06:00"],
    time_zone: "UTC",
  };
  expect(draftOf(was).rate.text).toBe("1.5");
  expect(changeOf(draftOf(was), was)).toEqual({ set: was, unset: [] });
  expect(changeOf(draftOf({}), {})).toEqual({ set: {}, unset: [] });
});

test("a setting that is no longer set here is unset", () => {
  const was = { backlog_bytes_per_second: 1500, quiet: [], time_zone: "UTC" };
  expect(changeOf(draftOf({}), was)).toEqual({
    set: {},
    unset: ["backlog_bytes_per_second", "quiet", "time_zone"],
  });
});

test("an empty list of quiet times is a setting of its own", () => {
  const draft = { ...draftOf({}), quiet: { own: true, text: " \n 08:00-12:00 \n\n" } };
  expect(changeOf(draft, {}).set.quiet).toEqual(["08:00-12:00"]);
  expect(changeOf({ ...draft, quiet: { own: true, text: "" } }, {}).set.quiet).toEqual([]);
});

test("kilobytes become whole bytes", () => {
  const rate = (text: string) =>
    changeOf({ ...draftOf({}), rate: { own: true, text } }, {}).set.backlog_bytes_per_second;
  expect([rate("20"), rate("0.0015"), rate("0"), rate("")]).toEqual([20_000, 2, 0, 0]);
});
