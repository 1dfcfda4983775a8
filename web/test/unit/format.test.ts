import { afterEach, describe, expect, test, vi } from "vitest";
import { ago, bytes, clock, day, duration, isOld, metric, percent, regional, stamp } from "../../src/format";

const noon = Date.parse("2026-01-15T12:00:00Z");
// Intl separates with narrow and no-break spaces; tests compare plain ones.
const plain = (text: string) => text.replace(/[\u00a0\u202f]/g, " ");

describe("values", () => {
  test.each([
    ["temp_die_celsius", 61.26, "en", "61.3 °C"],
    ["temp_die_celsius", 61.26, "de", "61,3 °C"],
    ["temp_die_celsius", 61.26, "pl", "61,3 °C"],
    ["fan_duty_ratio", 0.456, "en", "46 %"],
    ["cpu_freq_hertz", 2.9e9, "en", "2.9 GHz"],
    ["inference_latency_seconds", 0.1125, "zh", "112.5 ms"],
    ["fan_rpm", 12345, "de", "12.345 rpm"],
    ["something_new", 1.2345, "en", "1.23"],
  ])("%s %d in %s", (name, value, language, want) => {
    expect(plain(metric(name, value, language))).toBe(want);
  });

  test.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1 kB"],
    [16_510_000, "17 MB"],
    [2_327_524, "2.3 MB"],
  ])("%d bytes", (value, want) => expect(bytes(value, "en")).toBe(want));

  test("percent is 100 only when all are right, and 0 only when none is", () => {
    expect(percent(9999, 10_000, "en")).toBe("99.9 %");
    expect(percent(10_000, 10_000, "en")).toBe("100 %");
    expect(percent(1, 100_000, "en")).toBe("0.1 %");
    expect(percent(0, 0, "en")).toBe("–");
  });

  test("durations", () => {
    expect(plain(duration(600, "en"))).toBe("10 mins");
    expect(plain(duration(0.0213, "en"))).toBe("21 ms");
    expect(plain(duration(0, "en"))).toBe("0 secs");
  });
});

describe("regions", () => {
  afterEach(() => vi.unstubAllGlobals());
  test.each([
    [["de-AT", "en-US"], "en", "en-US"],
    [["de-AT", "en-US"], "de", "de-AT"],
    [["de-AT", "en-US"], "pl", "pl"],
    [["fr-FR"], "en", "en-GB"],
    [["en"], "en", "en-GB"],
    [undefined, "en", "en-GB"],
  ])("a browser that asks for %j gets %s as %s", (asked, language, want) => {
    vi.stubGlobal("navigator", asked && { languages: asked });
    expect(regional(language)).toBe(want);
  });
  test("a date is as the reader's country writes it", () => {
    vi.stubGlobal("navigator", { languages: ["en-US"] });
    expect(day("2026-03-14", "en", "utc")).toBe("Mar 14, 2026");
    vi.stubGlobal("navigator", { languages: ["en-GB"] });
    expect(day("2026-03-14", "en", "utc")).toBe("14 Mar 2026");
  });
});

describe("times", () => {
  const at = "2026-01-15T11:57:00Z";
  test("ages in words", () => {
    expect(ago(at, noon, "en")).toBe("3 min ago");
    expect(plain(ago(at, noon, "de"))).toBe("vor 3 Min.");
    expect(ago(at, noon, "zh")).toBe("3分钟前");
    expect(ago("2026-01-15T12:00:09Z", noon, "en")).toBe("now");
  });
  test("a value is old after two minutes, and when there is none", () => {
    expect(isOld("2026-01-15T11:58:01Z", noon)).toBe(false);
    expect(isOld("2026-01-15T11:57:59Z", noon)).toBe(true);
    expect(isOld(undefined, noon)).toBe(true);
  });
  test("a stamp names its zone", () => {
    expect(stamp(at, "en", "utc")).toContain("11:57:00");
    expect(stamp(at, "en", "utc")).toContain("UTC");
  });
  test("the local zone is the reader's", () => {
    // Vitest runs with TZ=Asia/Shanghai, see vite.config.ts.
    expect(clock(at, noon, "en", "local")).toBe("19:57:00");
    expect(clock(at, noon, "en", "utc")).toBe("11:57:00");
  });
  test("another day shows its date, by the chosen zone", () => {
    // 20:30 UTC of the 14th is the 15th in Shanghai.
    expect(clock("2026-01-14T20:30:00Z", noon, "en", "local")).toBe("04:30:00");
    expect(clock("2026-01-14T20:30:00Z", noon, "en", "utc")).toContain("14 Jan");
  });
});
