// Checks what a browser loads before the first page is usable: the scripts and
// styles of index.html with all that they import, and the largest dictionary; and
// all of what /t/ puts onto a phone.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";

const budget = 165 * 1024;
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

// The pages under /t/: all that their worker puts onto a phone, in all languages.
const techBudget = 70 * 1024;
const worker = readFileSync(join(dist, "t/sw.js"), "utf8");
const files = JSON.parse(/const files = (\[.*?\]);/s.exec(worker)[1]);
const loaded = new Set(files.map((file) => (file === "/t/" ? "/t/index.html" : file)).concat("/t/sw.js"));
const page = readFileSync(join(dist, "t/index.html"), "utf8");
for (const [, file] of page.matchAll(/(?:src|href)="([^"]+)"/g)) {
  if (!loaded.has(file)) {
    console.error(`size: /t/ loads ${file}, which its worker does not keep`);
    process.exit(1);
  }
}
const tech = [...loaded].reduce(
  (sum, file) => sum + brotliCompressSync(readFileSync(join(dist, file))).length,
  0,
);
console.log(
  `${(tech / 1024).toFixed(1).padStart(7)} KiB  all of /t/, brotli; budget ${techBudget / 1024} KiB`,
);
if (tech > techBudget) {
  console.error("size: /t/ is over budget: it is loaded on a ladder, over whatever network there is");
  process.exit(1);
}
