import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

// The Go package embeds the build; its folder is committed empty but for
// .keep, so that `go build` works before the first `npm run build`.
const keep: Plugin = {
  name: "keep",
  apply: "build",
  generateBundle() {
    this.emitFile({ type: "asset", fileName: ".keep", source: "" });
  },
};

// The service worker of the pages under /t/ has the list of all files that they load.
const techWorker: Plugin = {
  name: "tech-worker",
  apply: "build",
  enforce: "post",
  generateBundle(_, bundle) {
    const seen = new Set<string>();
    const take = (file: string) => {
      const chunk = bundle[file];
      if (seen.has(file) || !chunk) return;
      seen.add(file);
      if (chunk.type !== "chunk") return;
      for (const next of [...chunk.imports, ...chunk.dynamicImports]) take(next);
      for (const css of chunk.viteMetadata?.importedCss ?? []) take(css);
    };
    const entry = Object.values(bundle).find(
      (c) => c.type === "chunk" && c.isEntry && c.facadeModuleId?.endsWith("/t/index.html"),
    );
    if (!entry) this.error("no entry t/index.html");
    take(entry.fileName);
    const files = [
      "/t/",
      "/t/app.webmanifest",
      "/favicon.svg",
      ...[...seen].sort().map((file) => `/${file}`),
    ];
    const page = readFileSync("t/index.html", "utf8");
    const sum = createHash("sha256").update(JSON.stringify(files)).update(page).digest("hex").slice(0, 12);
    const source = readFileSync("src/tech/sw.js", "utf8")
      .replace("__FILES__", JSON.stringify(files))
      .replace("__SUM__", sum);
    this.emitFile({ type: "asset", fileName: "t/sw.js", source });
  },
};

export default defineConfig({
  plugins: [react(), tailwindcss(), keep, techWorker],
  build: {
    outDir: "../controller/api/web/dist",
    emptyOutDir: true,
    rolldownOptions: { input: ["index.html", "t/index.html"] },
    // light-dark() and oklch() are used as they are: browsers of 2024 and later.
    target: ["chrome123", "firefox121", "safari17.5"],
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    // The page's policy is default-src 'self': nothing may become a data: URL.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
  },
  worker: { format: "es" },
  server: { proxy: { "/api": process.env.EDGEHERD_URL ?? "http://127.0.0.1:8443" } },
  test: {
    include: ["test/unit/**/*.test.ts"],
    environment: "node",
    env: { TZ: "Asia/Shanghai" },
    testTimeout: 120_000, // the machine may be busy
  },
} as Parameters<typeof defineConfig>[0]);
