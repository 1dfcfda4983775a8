// What the page of secrets asks for. No answer holds a value.
import { queryOptions } from "@tanstack/react-query";
import { get, post, url } from "./client";
import type { BoxList, Secret, SecretAt, SecretBoxList, SecretList } from "./generated";
import { paths } from "./queries";

export const secretPaths = {
  secrets: "/api/v1/secrets",
  boxes: "/api/v1/secrets:boxes",
  remove: "/api/v1/secrets:remove",
} as const;

/** Boxes confirm by themselves, and nothing announces it. */
const confirmed = 10_000;

export const secretsQuery = queryOptions({
  queryKey: ["secrets", "list"],
  queryFn: ({ signal }) => get<SecretList>(secretPaths.secrets, signal),
  refetchInterval: confirmed,
});

/** at is the name of a secret and for whom it is, without all else. */
export const at = ({ name, box, site, label }: Secret | SecretAt): SecretAt => ({ name, box, site, label });

export const keyOf = (s: SecretAt): string => JSON.stringify([s.name, s.box, s.site, s.label]);

export const secretBoxesQuery = (s: SecretAt) =>
  queryOptions({
    queryKey: ["secrets", "boxes", keyOf(s)],
    queryFn: ({ signal }) => get<SecretBoxList>(url(secretPaths.boxes, {}, at(s)), signal),
    refetchInterval: confirmed,
  });

/** boxNamed finds the id of a box; undefined: there is none. */
export async function boxNamed(name: string): Promise<string | undefined> {
  const list = await get<BoxList>(url(paths.boxes, {}, { filter: `name = ${JSON.stringify(name)}` }));
  return list.items[0]?.id;
}

/** bytesOf are the bytes of a value as it is stored. */
export const bytesOf = (value: string): Uint8Array => new TextEncoder().encode(value);

export const setSecret = (s: SecretAt, value: string) =>
  post<SecretList>(secretPaths.secrets, { ...s, value: btoa(String.fromCharCode(...bytesOf(value))) });

export const removeSecret = (s: SecretAt) => post<SecretList>(secretPaths.remove, at(s));
