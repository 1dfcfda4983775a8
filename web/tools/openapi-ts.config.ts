import { defineConfig } from "@hey-api/openapi-ts";

// Types only: the pages fetch by path (src/api/client.ts), so a renamed
// operation does not touch them, and the browser loads no generated code.
export default defineConfig({
  input: "../openapi.json",
  output: { path: "../src/api/generated", clean: true },
  plugins: [{ name: "@hey-api/typescript", enums: false }],
});
