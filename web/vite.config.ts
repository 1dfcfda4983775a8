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

export default defineConfig({
  plugins: [react(), tailwindcss(), keep],
  build: {
    outDir: "../controller/api/web/dist",
    emptyOutDir: true,
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
  test: { include: ["test/unit/**/*.test.ts"], environment: "node", env: { TZ: "Asia/Shanghai" } },
} as Parameters<typeof defineConfig>[0]);
