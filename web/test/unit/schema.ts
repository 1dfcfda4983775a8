// Compares values with the schemas of the API.
import openapi from "../../openapi.json";

type Schema = {
  $ref?: string;
  type?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema | boolean;
};
const schemas = openapi.components.schemas as unknown as Record<string, Schema>;

function within(value: unknown, schema: Schema, at: string): string[] {
  if (schema.$ref) return within(value, schemas[schema.$ref.split("/").at(-1) as string] as Schema, at);
  if (Array.isArray(value)) return value.flatMap((v, i) => within(v, schema.items ?? {}, `${at}[${i}]`));
  if (typeof value !== "object" || value === null || !schema.properties) return [];
  const { properties } = schema;
  const missing = (schema.required ?? [])
    .filter((key) => !(key in value))
    .map((key) => `${at}.${key} is missing`);
  const inner = Object.entries(value).flatMap(([key, v]) =>
    properties[key] ? within(v, properties[key], `${at}.${key}`) : [`${at}.${key} is unknown`],
  );
  return [...missing, ...inner];
}

/** faults lists what in value is missing from, or unknown to, the schema of a name. */
export const faults = (value: unknown, name: string, at: string): string[] =>
  within(value, schemas[name] as Schema, at);
