// What a reader chose for this browser: theme and time zone. The language is
// kept by i18n/index.ts.
import { useSyncExternalStore } from "react";
import type { Zone } from "../format";

export type ThemeChoice = "system" | "light" | "dark";

type Prefs = { theme: ThemeChoice; zone: Zone; dark: boolean };

const media = typeof matchMedia === "undefined" ? undefined : matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();
let prefs: Prefs = read();

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage may be forbidden; then choices last until reload
  }
}

function read(): Prefs {
  const theme = stored("edgeherd.theme");
  const choice: ThemeChoice = theme === "light" || theme === "dark" ? theme : "system";
  const dark = choice === "system" ? (media?.matches ?? false) : choice === "dark";
  return { theme: choice, zone: stored("edgeherd.zone") === "utc" ? "utc" : "local", dark };
}

function publish(): void {
  if (prefs.theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = prefs.theme;
  for (const listener of listeners) listener();
}

/** startPrefs applies the stored theme before the first paint. */
export function startPrefs(): void {
  publish();
  media?.addEventListener("change", (event) => {
    if (prefs.theme === "system") prefs = { ...prefs, dark: event.matches };
    publish();
  });
}

function set(change: Partial<Prefs>, key: string, value: string): void {
  prefs = { ...prefs, ...change };
  if (prefs.theme === "system") prefs.dark = media?.matches ?? false;
  try {
    localStorage.setItem(key, value);
  } catch {
    // As in stored.
  }
  publish();
}

export const setTheme = (theme: ThemeChoice) =>
  set({ theme, dark: theme === "dark" }, "edgeherd.theme", theme);
export const setZone = (zone: Zone) => set({ zone }, "edgeherd.zone", zone);

export function usePrefs(): Prefs {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => prefs,
  );
}
