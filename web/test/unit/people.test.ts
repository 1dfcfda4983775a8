// What the pages of people and the audit log ask for is in the API, and the
// mock answers as the controller does.
import { expect, test } from "vitest";
import openapi from "../../openapi.json";
import { can, canEverywhere, peoplePaths } from "../../src/api/people";
import { secretPaths } from "../../src/api/secrets";
import { mayAct } from "../../src/pages/rolloutactions";
import { peopleSample } from "../mockpeople.mjs";
import { faults } from "./schema";

test("every path of people is in the API", () => {
  const known = Object.keys(openapi.paths);
  expect(
    [...Object.values(peoplePaths), ...Object.values(secretPaths)].filter((path) => !known.includes(path)),
  ).toEqual([]);
});

test.each([
  ["User", peopleSample.users],
  ["APIToken", peopleSample.tokens],
  ["AuditRecord", peopleSample.records],
  ["AuditState", [peopleSample.state]],
] as [string, object[]][])("the sample's %s has the fields that the controller sends", (name, values) => {
  expect(values.flatMap((value, i) => faults(value, name, `${name}[${i}]`))).toEqual([]);
});

test("without a session nothing is offered", () => {
  expect(can(undefined, "people.manage")).toBe(false);
});

test("buttons are those that the controller does not refuse", () => {
  const session = (role: string, sites: string[], ...verbs: string[]) => ({
    user: "x",
    role,
    sites,
    can: verbs,
    person: true,
  });
  const actions = ["start", "pause", "resume", "approve", "rollback", "cancel"];
  for (const [who, want] of [
    [undefined, []],
    [session("viewer", ["*"], "fleet.see"), []],
    [session("admin", ["*"], "rollout.stop", "site.set"), ["pause", "cancel"]],
    [session("ops", ["*"], "rollout.run", "rollout.stop"), actions],
    [session("owner", ["*"], "rollout.run", "rollout.stop"), actions],
    [session("ops", ["berlin-1"], "rollout.run", "rollout.stop"), []],
  ] as const) {
    expect(actions.filter((action) => mayAct(who as never, action))).toEqual(want);
  }
  expect(canEverywhere(session("ops", ["berlin-1"], "site.set"), "site.set")).toBe(false);
  expect(canEverywhere(session("admin", ["*"], "site.set"), "site.set")).toBe(true);
});
