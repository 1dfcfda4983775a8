// What the page of a rollout offers, from what the controller tells of it.
import { expect, test } from "vitest";
import type { Rollout, Target, Wave } from "../../src/api/generated";
import { shownAs, tally } from "../../src/pages/progress";
import { awaits, takenBack } from "../../src/pages/rolloutactions";

const target = { name: "ocr-rec", version: "5.0.0", digest: "sha256:new" };
const box = (state: string, before: string, offered = true) => ({
  state,
  before: { name: "ocr-rec", version: "4.0.0", digest: before },
  ...(offered && { offered: "2026-01-15T11:45:00Z" }),
});
const rollout = (waves: object[], more: object = {}) =>
  ({
    id: "r-mine",
    state: "running",
    kind: "model",
    created: "2026-01-15T11:00:00Z",
    target,
    waves,
    ...more,
  }) as Rollout;

test("a rollback is about the boxes that were offered the version and ran another one", () => {
  const targets = [
    box("succeeded", "sha256:old"),
    box("failed", "sha256:old"),
    box("succeeded", "sha256:new"), // it had the version before
    box("succeeded", ""), // it had nothing before
    box("superseded", "sha256:old"),
    box("scheduled", "sha256:old", false),
  ];
  const mine = rollout([{ state: "running", targets }]);
  expect(takenBack(mine)).toBe(2);
  expect(takenBack({ ...mine, rolled_back_by: ["r-1"] })).toBe(0);
  expect(takenBack({ ...mine, overtaken: true })).toBe(0);
});

test("boxes are counted as the controller counts them, in the order people read", () => {
  const counts = tally([
    { state: "passed", counts: { succeeded: 2, failed: 1 }, targets: [] },
    { state: "running", counts: { scheduled: 4, succeeded: 1 }, targets: [] },
  ]);
  expect(counts).toEqual({
    total: 8,
    by: [
      ["succeeded", 3],
      ["failed", 1],
      ["scheduled", 4],
    ],
  });
});

test("a box whose disk holds it up is not called silent, where the page knows the boxes", () => {
  const silent = { state: "unreachable" };
  const held = { ...silent, err_said: { code: "held-up-overdue", args: ["2h0m0s", "waits for room"] } };
  expect([silent, held, { ...held, state: "succeeded" }].map((t) => shownAs(t as Target))).toEqual([
    "unreachable",
    "held-up",
    "succeeded",
  ]);
  const counts = { succeeded: 3, unreachable: 2 };
  const by = (targets: object[]) => tally([{ state: "running", counts, targets }] as Wave[]).by;
  expect(by([silent, held])).toEqual([
    ["succeeded", 3],
    ["unreachable", 1],
    ["held-up", 1],
  ]);
  expect(by([held, held])).toEqual([
    ["succeeded", 3],
    ["held-up", 2],
  ]);
  expect(by([])).toEqual([
    ["succeeded", 3],
    ["unreachable", 2],
  ]);
});

test("an approval is offered for the wave that waits for somebody", () => {
  const passed = { state: "passed", targets: [] };
  const waiting = { state: "waiting", targets: [] };
  expect(awaits(rollout([passed, waiting]))).toBe(-1);
  expect(awaits(rollout([passed, { ...waiting, reason: "waits for an approval" }]))).toBe(1);
  expect(awaits(rollout([{ ...passed, state: "halted", reason: "1 box failed" }, waiting]))).toBe(-1);
});
