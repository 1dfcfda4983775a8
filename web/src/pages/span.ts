// The time range of the charts, as the address holds it.

import { now } from "../api/now";
import type { Span } from "../api/queries";

/** Ranges that end now, in seconds. */
export const spans: Record<string, number> = {
  "15m": 900,
  "1h": 3600,
  "6h": 21_600,
  "24h": 86_400,
  "7d": 604_800,
  "30d": 2_592_000,
};

/** spanOf reads a range; from and to win over t, nonsense falls back to an hour. */
export function spanOf(search: { t?: string; from?: string; to?: string }): Span {
  const from = Date.parse(search.from ?? "");
  const to = Date.parse(search.to ?? "");
  if (from < to) {
    return {
      key: `${from}-${to}`,
      range: () => ({ from: new Date(from), to: new Date(to) }),
      refresh: false,
    };
  }
  const key = search.t && search.t in spans ? search.t : "1h";
  const seconds = spans[key] as number;
  return {
    key,
    range: () => {
      const end = now();
      return { from: new Date(end - seconds * 1000), to: new Date(end) };
    },
    // A pixel of a long range takes minutes to fill.
    refresh: seconds <= 3600 ? 15_000 : 60_000,
  };
}
