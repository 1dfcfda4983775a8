// A small catalogue of its own: the dashboard's is twenty times as long. Keys are
// flat; {{x}} is replaced, and a count chooses the plural form of the language.
import en from "./words.en.json";

export const languages = { en: "English", de: "Deutsch", pl: "Polski", zh: "中文" } as const;
export type Language = keyof typeof languages;
type Words = Record<string, string>;

const load: Record<Language, () => Promise<{ default: Words }>> = {
  en: async () => ({ default: en }),
  de: () => import("./words.de.json"),
  pl: () => import("./words.pl.json"),
  zh: () => import("./words.zh.json"),
};

const stored = "edgeherd.language"; // the dashboard's
export let language: Language = "en";
let words: Words = en;

/** choose takes a language that was chosen before, else the first of the browser's that we have. */
export function choose(chosen: string | null, wanted: readonly string[]): Language {
  const known = (tag: string): tag is Language => tag in languages;
  return [chosen ?? "", ...wanted.map((tag) => tag.split("-")[0] ?? "")].find(known) ?? "en";
}

export async function speak(chosen?: Language): Promise<void> {
  let before: string | null = null;
  try {
    if (chosen) localStorage.setItem(stored, chosen);
    before = localStorage.getItem(stored);
  } catch {
    // Storage may be forbidden: the choice lasts until reload.
  }
  language = chosen ?? choose(before, navigator.languages);
  try {
    words = (await load[language]()).default;
  } catch {
    language = "en"; // not on this phone yet, and no network
    words = en;
  }
  document.documentElement.lang = language;
}

export function t(key: string, with_: Record<string, string | number> = {}): string {
  const { count } = with_;
  const form =
    typeof count === "number" ? `${key}_${new Intl.PluralRules(language).select(count)}` : undefined;
  const text = (form && words[form]) ?? words[key] ?? key;
  return text.replace(/\{\{(\w+)\}\}/g, (_, name) => String(with_[name] ?? ""));
}

/** word is t for what a controller says, which may be newer than this page. */
export const word = (group: string, name: string): string => words[`${group}.${name}`] ?? name;

export function ago(ms: number, now = Date.now()): string {
  const s = Math.max(0, Math.round((now - ms) / 1000));
  const [n, unit]: [number, Intl.RelativeTimeFormatUnit] =
    s < 90
      ? [s, "second"]
      : s < 5400
        ? [Math.round(s / 60), "minute"]
        : s < 129_600
          ? [Math.round(s / 3600), "hour"]
          : [Math.round(s / 86_400), "day"];
  return new Intl.RelativeTimeFormat(language, { numeric: "always", style: "short" }).format(-n, unit);
}
