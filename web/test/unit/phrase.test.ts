// Every sentence that boxes and the controller give a code is in the
// dictionaries, in English word for word as they write it.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import de from "../../src/i18n/phrases.de.json";
import en from "../../src/i18n/phrases.en.json";
import pl from "../../src/i18n/phrases.pl.json";
import zh from "../../src/i18n/phrases.zh.json";
import { figure, type Phrases, say, slug } from "../../src/pages/phrase";

const phrases: Record<string, string> = en.phrase;

/** sentences are the codes and formats of one folder of Go files. */
function sentences(folder: string): [string, string][] {
  const root = fileURLToPath(new URL(`../../../${folder}`, import.meta.url));
  return readdirSync(root)
    .filter((file) => file.endsWith(".go") && !file.endsWith("_test.go"))
    .flatMap((file) =>
      [
        ...readFileSync(join(root, file), "utf8").matchAll(
          /\b(?:fact|Fact|say|Of)\([^"\n]*(?:"[a-z_]+"[^"\n]*)?,?\s*"([a-z][a-z-]*)",\s*"((?:[^"\\]|\\.)+)"/g,
        ),
      ].map((m) => [m[1], m[2]] as [string, string]),
    );
}

/** like writes a format of Go as the dictionaries do. */
function like(format: string): string {
  let i = 0;
  return format.replace(/%%|%[-+.0-9]*[a-z]/g, (verb) => (verb === "%%" ? "%" : `{{${"abcdefgh"[i++]}}}`));
}

test.each([
  ["internal/health", 25],
  ["agent/blackbox", 20],
  ["controller/care", 15],
])("what %s says is in the dictionaries", (folder, least) => {
  const said = sentences(folder);
  expect(said.length).toBeGreaterThanOrEqual(least);
  for (const [code, format] of said) expect(phrases[code], code).toBe(like(format));
});

test("figures are written as the language does, with the digits that they came with", () => {
  expect([figure("1234.50", "de"), figure("+3.1", "en"), figure("-2", "en"), figure("7", "pl")]).toEqual([
    "1.234,50",
    "+3.1",
    "-2",
    "7",
  ]);
});

test("words are found by what is left of them without signs", () => {
  expect([slug("the site's room sensor"), slug("back to normal, or replaced"), slug("NVMe")]).toEqual([
    "the-site-s-room-sensor",
    "back-to-normal-or-replaced",
    "nvme",
  ]);
  for (const key of ["the-site-s-room-sensor", "back-to-normal-or-replaced", "nvme"]) {
    expect(en.word).toHaveProperty(key);
  }
});

test.each([
  ["de", de],
  ["pl", pl],
  ["zh", zh],
])("%s says all that English says, with the same arguments", (_, words: Phrases) => {
  expect(Object.keys(words.word)).toEqual(Object.keys(en.word));
  expect(Object.keys(words.phrase)).toEqual(Object.keys(en.phrase));
  const holes = (text = "") => [...text.matchAll(/\{\{(\w)\}\}/g)].map((m) => m[1]).sort();
  for (const [code, text] of Object.entries(en.phrase)) {
    expect(holes(words.phrase[code]), code).toEqual(holes(text));
  }
});

test("a sentence is said with its figures and words; what is not known is left to English", () => {
  expect(say({ code: "compared-by", args: ["its own inlet", "its power", "no fan", "412"] }, de, "de")).toBe(
    "verglichen nach: Luft laut eigener Zuluft; seine Leistung; kein Lüfter; sauberer Zustand aus 412 h gelernt",
  );
  expect(say({ code: "last-reading", args: ["die 93 °C, inlet 24 °C, 5200 rpm"] }, de, "de")).toBe(
    "letzter Messwert: Chip 93 °C, Zuluft 24 °C, 5200 rpm",
  );
  expect(say({ text: "back to normal" }, pl, "pl")).toBe("znów w normie");
  expect(say({ code: "of-a-newer-box", text: "x" }, de, "de")).toBeUndefined();
});
