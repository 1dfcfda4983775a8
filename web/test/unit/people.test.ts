// What the pages of people and the audit log ask for is in the API, and the
// mock answers as the controller does.
import { expect, test } from "vitest";
import openapi from "../../openapi.json";
import { can, peoplePaths } from "../../src/api/people";
import { peopleSample } from "../mockpeople.mjs";
import { faults } from "./schema";

test("every path of people is in the API", () => {
  const known = Object.keys(openapi.paths);
  expect(Object.values(peoplePaths).filter((path) => !known.includes(path))).toEqual([]);
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
