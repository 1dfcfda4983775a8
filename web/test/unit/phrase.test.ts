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

/** sentences are the codes and formats of one folder of Go files, or of one file. */
function sentences(folder: string): [string, string][] {
  const root = fileURLToPath(new URL(`../../../${folder}`, import.meta.url));
  const files = folder.endsWith(".go") ? [""] : readdirSync(root);
  return files
    .filter((file) => join(root, file).endsWith(".go") && !file.endsWith("_test.go"))
    .flatMap((file) =>
      [
        ...readFileSync(join(root, file), "utf8").matchAll(
          /\b(?:fact|Fact|say|Of|know)\([^"\n]*(?:"[a-z_]+"[^"\n]*)?,?\s*"([a-z][a-z-]*)",\s*"((?:[^"\\]|\\.)+)"/g,
        ),
      ].map((m) => [m[1], JSON.parse(`"${m[2]}"`)] as [string, string]),
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
  ["controller/rollout", 150],
  ["controller/api", 5],
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
  const codes = (of: object) => [
    ...new Set(Object.keys(of).map((code) => code.replace(/_(one|few|many)$/, ""))),
  ];
  expect(codes(words.phrase)).toEqual(codes(en.phrase));
  const holes = (text = "") => [...text.matchAll(/\{\{(\w)\}\}/g)].map((m) => m[1]).sort();
  for (const [code, text] of Object.entries(words.phrase)) {
    expect(holes(text), code).toEqual(holes(phrases[code.replace(/_(one|few|many)$/, "")]));
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

test("a sentence within a sentence is said too, with its plural; names stay as they are", () => {
  const boxes = (n: string) => ({ code: "n-boxes", args: [n] });
  const halted = {
    code: "halted",
    args: ["1", "3", "1 box failed, the plan allows 0. 1043: disk"],
    in: {
      "2": {
        code: "breach-count",
        args: ["1 box", "0", "1043: disk"],
        in: { "0": boxes("1"), "2": { code: "one-says", args: ["1043", "disk"], in: { "0": {} } } },
      },
    },
  };
  expect(say(halted, de, "de", true)).toBe(
    "Angehalten in Welle 1 von 3: 1 Box gescheitert, der Plan erlaubt 0. 1043: disk",
  );
  expect(say(halted, pl, "pl", true)).toContain("nieudane: 1 urządzenie, plan dopuszcza 0");
  expect(["1", "3", "5", "22"].map((n) => say(boxes(n), pl, "pl", true))).toEqual([
    "1 urządzenie",
    "3 urządzenia",
    "5 urządzeń",
    "22 urządzenia",
  ]);
  const waits = {
    code: "one-waits",
    args: ["x", "load", "y"],
    in: { "0": boxes("2"), "2": { code: "new", args: [] } },
  };
  expect(say(waits, zh, "zh", true)).toBe("2 台设备；load 等待：y");
  const care = {
    code: "needs-care",
    args: ["ticket", "airflow"],
    in: { "1": { code: "word", args: ["airflow"] } },
  };
  expect(say(care, de, "de", true)).toBe("braucht Pflege (ticket): Filter oder Kühlrippen verstopft");
});
