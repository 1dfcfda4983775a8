// Numbers and times as text, in the reader's language and chosen time zone.

export type Zone = "local" | "utc";

/** A value is old after two reporting intervals of one minute. */
export const oldMs = 120_000;

export const isOld = (iso: string | undefined, now: number): boolean => !iso || now - Date.parse(iso) > oldMs;

/**
 * regional is the form of a language that the reader's browser asks for: 3 Apr
 * in Britain, Apr 3 in America. English without a region is British.
 */
export function regional(language: string): string {
  const asked = globalThis.navigator?.languages?.find((tag) => tag.startsWith(`${language}-`));
  return asked ?? (language === "en" ? "en-GB" : language);
}

const cache = new Map<string, Intl.NumberFormat>();

/** number formats with at most digits decimals. */
export function number(value: number, language: string, digits = 0): string {
  const key = `${language}/${digits}`;
  let format = cache.get(key);
  if (!format) {
    format = new Intl.NumberFormat(regional(language), {
      maximumFractionDigits: digits,
      minimumFractionDigits: 0,
    });
    cache.set(key, format);
  }
  return format.format(value);
}

type Unit = { unit: string; scale: number; digits: number };

// The API speaks SI base units; people read these.
const units: Record<string, Unit> = {
  temp_die_celsius: { unit: "°C", scale: 1, digits: 1 },
  temp_inlet_celsius: { unit: "°C", scale: 1, digits: 1 },
  thermal_resistance_kelvin_per_watt: { unit: "K/W", scale: 1, digits: 2 },
  fan_rpm: { unit: "rpm", scale: 1, digits: 0 },
  fan_duty_ratio: { unit: "%", scale: 100, digits: 0 },
  cpu_busy_ratio: { unit: "%", scale: 100, digits: 0 },
  power_watts: { unit: "W", scale: 1, digits: 1 },
  cpu_freq_hertz: { unit: "GHz", scale: 1e-9, digits: 2 },
  inference_latency_seconds: { unit: "ms", scale: 1000, digits: 1 },
};

const plain: Unit = { unit: "", scale: 1, digits: 2 };

export const unitOf = (metric: string): Unit => units[metric] ?? plain;

/** metric formats a value of the API in the unit that people read. */
export function metric(name: string, value: number, language: string): string {
  const { unit, scale, digits } = unitOf(name);
  return `${number(value * scale, language, digits)}${unit ? ` ${unit}` : ""}`;
}

const steps: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

function largest(seconds: number): [string, number] {
  for (const [unit, size] of steps) {
    if (seconds >= size) return [unit, Math.floor(seconds / size)];
  }
  return ["second", 0];
}

/** ago is the age of a moment in words: "3 minutes ago". A future is "now". */
export function ago(iso: string, now: number, language: string): string {
  const [unit, count] = largest(Math.max(0, (now - Date.parse(iso)) / 1000));
  const format = new Intl.RelativeTimeFormat(regional(language), {
    numeric: count === 0 ? "auto" : "always",
    style: "short",
  });
  return format.format(-count, unit as Intl.RelativeTimeFormatUnit);
}

/** duration is a length of time: "10 min", "2 h", or "1.5 s". */
export function duration(seconds: number, language: string): string {
  const short = seconds > 0 && seconds < 1;
  const [unit, count] = short ? ["millisecond", 1000 * seconds] : largest(seconds);
  return new Intl.NumberFormat(regional(language), {
    style: "unit",
    unit,
    unitDisplay: "short",
    maximumSignificantDigits: short ? 2 : undefined,
    maximumFractionDigits: short ? undefined : 0,
  }).format(count);
}

const prefixes = ["B", "kB", "MB", "GB", "TB"];

/** bytes counts in powers of 1000. */
export function bytes(value: number, language: string): string {
  let size = value;
  let i = 0;
  while (size >= 1000 && i < prefixes.length - 1) {
    size /= 1000;
    i++;
  }
  return `${number(size, language, size < 10 && i > 0 ? 1 : 0)} ${prefixes[i]}`;
}

export const timeZone = (zone: Zone): string | undefined => (zone === "utc" ? "UTC" : undefined);

/** stamp is a date and time with its zone named. */
export function stamp(iso: string, language: string, zone: Zone): string {
  return new Intl.DateTimeFormat(regional(language), {
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
    timeZone: timeZone(zone),
    timeZoneName: "short",
  }).format(new Date(iso));
}

/** clock is the time of day alone; the date is added on another day than now. */
export function clock(iso: string, now: number, language: string, zone: Zone): string {
  const day = new Intl.DateTimeFormat("en-CA", { timeZone: timeZone(zone) });
  const other = day.format(new Date(iso)) !== day.format(now);
  return new Intl.DateTimeFormat(regional(language), {
    ...(other ? { day: "numeric", month: "short" } : { second: "2-digit" }),
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    timeZone: timeZone(zone),
  }).format(new Date(iso));
}

/** percent of a ratio, never rounded up to 100 nor down to 0. */
export function percent(part: number, whole: number, language: string): string {
  if (whole === 0) return "–";
  let share = Math.round((part / whole) * 1000) / 10;
  if (share === 100 && part < whole) share = 99.9;
  if (share === 0 && part > 0) share = 0.1;
  return `${number(share, language, 1)} %`;
}

/** day is a date alone. A calendar day such as 2026-03-14 is the same in every zone. */
export function day(iso: string, language: string, zone: Zone): string {
  const calendar = /^\d{4}-\d\d-\d\d$/.test(iso);
  return new Intl.DateTimeFormat(regional(language), {
    day: "numeric",
    month: "short",
    year: "numeric",
    timeZone: calendar ? "UTC" : timeZone(zone),
  }).format(new Date(iso));
}

/** distance of metres as the crow flies. */
export function distance(metres: number, language: string): string {
  return new Intl.NumberFormat(regional(language), {
    style: "unit",
    unit: metres < 1000 ? "meter" : "kilometer",
    maximumFractionDigits: metres < 10_000 && metres >= 1000 ? 1 : 0,
  }).format(metres < 1000 ? metres : metres / 1000);
}

/** signedPercent has its sign always: what is above or below the clean box. */
export const signedPercent = (value: number, language: string): string =>
  `${new Intl.NumberFormat(regional(language), { maximumFractionDigits: 1, signDisplay: "exceptZero" }).format(value)} %`;
