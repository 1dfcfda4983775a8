// Checks what a browser loads before the first page is usable: the scripts and
// styles of index.html with all that they import, and the largest dictionary.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";

const budget = 180 * 1024;
const dist = fileURLToPath(new URL("../../controller/api/web/dist", import.meta.url));
if (!existsSync(join(dist, "index.html"))) {
  console.error("size: no build to measure; run `npm run build` first");
  process.exit(1);
}
const brotli = (file) => brotliCompressSync(readFileSync(join(dist, "assets", file))).length;

const html = readFileSync(join(dist, "index.html"), "utf8");
const wanted = [...html.matchAll(/(?:src|href)="\/assets\/([^"]+\.(?:js|css))"/g)].map((m) => m[1]);
const seen = new Set();
while (wanted.length > 0) {
  const file = wanted.pop();
  if (seen.has(file)) continue;
  seen.add(file);
  if (!file.endsWith(".js")) continue;
  const code = readFileSync(join(dist, "assets", file), "utf8");
  for (const m of code.matchAll(/(?:from|import)\s*["']\.\/([^"']+\.js)["']/g)) wanted.push(basename(m[1]));
}
const dictionaries = readdirSync(join(dist, "assets")).filter((f) => /^(en|de|pl|zh)-[^/]*\.js$/.test(f));
const largest = dictionaries.sort((a, b) => brotli(b) - brotli(a))[0];
if (largest) seen.add(largest);
let total = 0;
for (const file of seen) {
  const size = brotli(file);
  total += size;
  console.log(`${(size / 1024).toFixed(1).padStart(7)} KiB  ${file}`);
}
console.log(`${(total / 1024).toFixed(1).padStart(7)} KiB  initial, brotli; budget ${budget / 1024} KiB`);
if (total > budget) {
  console.error("size: over budget; load more of it later, or drop it");
  process.exit(1);
}
