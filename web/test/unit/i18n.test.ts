import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import i18next from "i18next";
import { describe, expect, test } from "vitest";
import { pick } from "../../src/i18n";
import de from "../../src/i18n/de.json";
import en from "../../src/i18n/en.json";
import pl from "../../src/i18n/pl.json";
import zh from "../../src/i18n/zh.json";
import { choose } from "../../src/tech/words";
import techDe from "../../src/tech/words.de.json";
import techEn from "../../src/tech/words.en.json";
import techPl from "../../src/tech/words.pl.json";
import techZh from "../../src/tech/words.zh.json";

type Words = { [key: string]: string | Words };

const dashboard: Record<string, Words> = { en, de, pl, zh };
const tech: Record<string, Words> = { en: techEn, de: techDe, pl: techPl, zh: techZh };

function flat(words: Words, prefix = ""): [string, string][] {
  return Object.entries(words).flatMap(([key, value]) =>
    typeof value === "string" ? [[prefix + key, value] as [string, string]] : flat(value, `${prefix}${key}.`),
  );
}

const plural = /_(zero|one|two|few|many|other)$/;
const base = (key: string) => key.replace(plural, "");
const basesOf = (words: Words) => [...new Set(flat(words).map(([key]) => base(key)))].sort();

describe.each(
  [dashboard, tech].flatMap((all) =>
    Object.keys(all).map((l) => [l, all === tech ? "tech" : "dashboard", all] as const),
  ),
)("%s of the %s", (language, _, dictionaries) => {
  const words = dictionaries[language] as Words;
  const en = dictionaries.en as Words;
  const entries = new Map(flat(words));

  test("has the keys of English", () => expect(basesOf(words)).toEqual(basesOf(en)));

  test("has every plural form of its language", () => {
    const forms = new Intl.PluralRules(language).resolvedOptions().pluralCategories;
    const counted = new Set([...entries.keys()].filter((key) => plural.test(key)).map(base));
    const missing = [...counted]
      .flatMap((key) => forms.map((form) => `${key}_${form}`))
      .filter((key) => !entries.has(key));
    expect(missing).toEqual([]);
  });

  test("has no empty text and the placeholders of English", () => {
    const holes = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((m) => m[1]).sort();
    const english = new Map(flat(en));
    for (const [key, text] of entries) {
      expect(text.trim(), key).not.toBe("");
      const like = english.get(key) ?? english.get(`${base(key)}_other`) ?? "";
      expect(holes(text), key).toEqual(holes(like));
    }
  });
});

test("every text that the pages name exists", () => {
  const root = fileURLToPath(new URL("../../src", import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((f) => /\.tsx?$/.test(f));
  const unknown: string[] = [];
  for (const file of files) {
    const known = new Set(basesOf(file.startsWith("tech/") ? techEn : en));
    const code = readFileSync(join(root, file), "utf8");
    for (const m of code.matchAll(/\bt\(\s*"([^"]+)"/g))
      if (!known.has(m[1] as string)) unknown.push(`${file}: ${m[1]}`);
  }
  expect(unknown).toEqual([]);
});

test("Polish counts as Polish does", async () => {
  await i18next.init({ lng: "pl", resources: { pl: { translation: pl } } });
  const say = (count: number) => i18next.t("count.boxes", { count });
  expect([1, 2, 5, 12, 22, 25, 112].map(say)).toEqual([
    "1 urządzenie",
    "2 urządzenia",
    "5 urządzeń",
    "12 urządzeń",
    "22 urządzenia",
    "25 urządzeń",
    "112 urządzeń",
  ]);
});

test("the browser's first known language is taken, a stored one before it", () => {
  expect(pick(null, ["fr-FR", "pl-PL", "en"])).toBe("pl");
  expect(pick("zh", ["de"])).toBe("zh");
  expect(pick("xx", ["zh-Hans-CN"])).toBe("zh");
  expect(pick(null, ["fr"])).toBe("en");
});

test("the pages under /t/ choose a language as the dashboard does, and call things the same", () => {
  for (const [stored, wanted] of [
    [null, ["fr-FR", "pl-PL", "en"]],
    ["zh", ["de"]],
    ["xx", ["zh-Hans-CN"]],
    [null, ["fr"]],
  ] as const)
    expect(choose(stored, wanted)).toBe(pick(stored, wanted));
  const shared = /^(todo|part|health|link|ticketState|work)\./;
  for (const [language, words] of Object.entries(tech)) {
    const theirs = new Map(flat(dashboard[language] as Words));
    for (const [key, text] of flat(words))
      if (shared.test(key)) expect(text, `${language} ${key}`).toBe(theirs.get(key));
  }
});
