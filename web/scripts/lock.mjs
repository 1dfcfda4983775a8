// Brings package-lock.json into the form that is committed. Run it after each
// `npm install`: npm run lock
//
// It drops download addresses, so that every machine uses its own registry, and
// names the native packages of platforms that the registry at hand does not
// carry: npm leaves those out, and `npm ci` then calls the file out of date.
// Their digests are unknown here, so these entries have none.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const file = fileURLToPath(new URL("../package-lock.json", import.meta.url));
const lock = JSON.parse(readFileSync(file, "utf8"));

const systems = [
  "android",
  "darwin",
  "freebsd",
  "linux",
  "openbsd",
  "openharmony",
  "win32",
  "aix",
  "sunos",
  "netbsd",
];
const processors = [
  "arm64",
  "x64",
  "arm",
  "ia32",
  "ppc64",
  "riscv64",
  "s390x",
  "loong64",
  "mips64el",
  "wasm32",
];

function entry(name, version) {
  const words = name.split(/[-/]/);
  const os = systems.filter((system) => words.includes(system));
  const cpu = processors.filter((cpu) =>
    words.some((word) => word === cpu || (cpu === "arm" && /^arm.+f$/.test(word))),
  );
  const libc = words.some((word) => word.startsWith("musl"))
    ? ["musl"]
    : words.includes("gnu")
      ? ["glibc"]
      : [];
  const limits = Object.fromEntries(Object.entries({ cpu, libc, os }).filter(([, list]) => list.length > 0));
  return { version, ...limits, dev: true, optional: true };
}

for (const [path, info] of Object.entries(lock.packages)) {
  delete info.resolved;
  for (const [name, version] of Object.entries(info.optionalDependencies ?? {})) {
    const nested = lock.packages[`${path}/node_modules/${name}`];
    if (!nested) lock.packages[`node_modules/${name}`] ??= entry(name, version);
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
