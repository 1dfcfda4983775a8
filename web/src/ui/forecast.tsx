// A forecast as an interval, and how sure a cause is. A single number of days
// would promise more than is known.
import { useTranslation } from "react-i18next";
import type { HeatForecast } from "../api/generated";
import { useNow } from "../api/now";
import { number, percent } from "../format";
import { Ago } from "./parts";

/** beyond is "not within a year" of the API. */
const beyond = 365;

type Interval = { low_days: number; mid_days?: number; high_days: number };

/** fromNow counts the days of a forecast from now: they were counted from when it was made. */
export function fromNow<T extends Interval & { made: string }>(forecast: T, at: number): T {
  const age = Math.max(0, (at - Date.parse(forecast.made)) / 86_400_000);
  const left = (days: number) => (days >= beyond ? days : Math.max(0, days - age));
  return {
    ...forecast,
    low_days: left(forecast.low_days),
    high_days: left(forecast.high_days),
    ...(forecast.mid_days !== undefined && { mid_days: left(forecast.mid_days) }),
  };
}

/** newest of some forecasts is the one that was made last. */
export const newest = (...forecasts: (HeatForecast | undefined)[]): HeatForecast | undefined =>
  forecasts
    .filter((forecast) => forecast !== undefined)
    .sort((a, b) => Date.parse(b.made) - Date.parse(a.made))[0];

/** where is the place of a number of days on a scale that gives the near days most room, 0 to 1. */
export const where = (days: number): number =>
  Math.log1p(Math.max(0, Math.min(days, beyond))) / Math.log1p(beyond);

/** useInterval says a forecast in words. */
export function useInterval(): (low: number, high: number) => string {
  const { t, i18n } = useTranslation();
  const say = (days: number) => number(days, i18n.language, days < 3 ? 1 : 0);
  return (low, high) =>
    low >= beyond
      ? t("forecast.beyond")
      : high >= beyond
        ? t("forecast.from", { low: say(low) })
        : t("forecast.days", { low: say(low), high: say(high) });
}

export const colourOf = (low: number): string => (low <= 7 ? "hot" : low <= 21 ? "warm" : "busy");

const fills: Record<string, string> = { hot: "fill-hot", warm: "fill-warm", busy: "fill-busy" };
const tickDays = [1, 7, 30, 90, 365];

function Bar({ forecast, height }: { forecast: Interval; height: number }) {
  const fill = fills[colourOf(forecast.low_days)];
  const [low, high] = [100 * where(forecast.low_days), 100 * where(forecast.high_days)];
  const middle = height / 2;
  return (
    <>
      <rect x="0" y={middle - 1} width="100%" height="2" className="fill-line" />
      <rect
        x={`${low}%`}
        y={middle - 4}
        width={`${Math.max(1.5, high - low)}%`}
        height="8"
        rx="4"
        className={fill}
        opacity="0.45"
      />
      {forecast.mid_days !== undefined && forecast.mid_days < beyond && (
        <circle
          cx={`${100 * where(forecast.mid_days)}%`}
          cy={middle}
          r="5"
          className={`${fill} stroke-card`}
          strokeWidth="1.5"
        />
      )}
    </>
  );
}

/** Brief is a forecast in a row of a table. */
export function Brief({ forecast: made }: { forecast: HeatForecast | undefined }) {
  const say = useInterval();
  const at = useNow(60_000);
  if (!made) return <span className="text-soft">–</span>;
  const forecast = fromNow(made, at);
  const soon = forecast.low_days <= 21;
  return (
    <span className="inline-block w-full min-w-24">
      <span className={`num whitespace-nowrap ${soon ? "" : "text-soft"}`}>
        {say(forecast.low_days, forecast.high_days)}
      </span>
      {forecast.low_days < beyond && (
        <svg width="100%" height="12" className="block max-w-44" aria-hidden="true">
          <Bar forecast={forecast} height={12} />
        </svg>
      )}
    </span>
  );
}

/** Forecast draws the interval over a scale of days, with the words above it. */
export function Forecast({ forecast: made }: { forecast: HeatForecast }) {
  const { t, i18n } = useTranslation();
  const forecast = fromNow(made, useNow(60_000));
  const say = useInterval();
  const language = i18n.language;
  const mid = forecast.mid_days < beyond ? number(forecast.mid_days, language) : undefined;
  return (
    <div>
      <p>
        <strong>{t("forecast.throttles", { when: say(forecast.low_days, forecast.high_days) })}</strong>
        {mid !== undefined && <> {t("forecast.mid", { mid })}</>}
      </p>
      <svg width="100%" height="38" className="mt-1 block overflow-visible" aria-hidden="true">
        <g transform="translate(0 2)">
          <Bar forecast={forecast} height={14} />
        </g>
        {tickDays.map((days) => (
          <g key={days}>
            <line
              x1={`${100 * where(days)}%`}
              x2={`${100 * where(days)}%`}
              y1="16"
              y2="21"
              className="stroke-edge"
            />
            <text
              x={`${100 * where(days)}%`}
              y="34"
              fontSize="11"
              textAnchor={days === beyond ? "end" : "middle"}
              className="num fill-soft"
            >
              {t("forecast.tick", { days: number(days, language) })}
            </text>
          </g>
        ))}
      </svg>
      <p className="text-xs text-soft">
        {t(forecast.trip_known ? "forecast.trip" : "forecast.tripAssumed", {
          celsius: number(forecast.trip_celsius, language),
        })}{" "}
        {t("forecast.how")} <Ago time={forecast.made} />
      </p>
    </div>
  );
}

/** Sure says how sure a cause is, as word and bar. */
export function Sure({ of }: { of: number }) {
  const { t, i18n } = useTranslation();
  if (of <= 0) return null;
  const share = percent(of, 1, i18n.language);
  return (
    <span className="inline-flex items-center gap-1.5 text-xs whitespace-nowrap text-soft">
      <span aria-hidden="true" className="inline-block h-1.5 w-10 overflow-hidden rounded bg-line">
        <span className="block h-full bg-soft" style={{ width: `${100 * of}%` }} />
      </span>
      {t("finding.sure", { share })}
    </span>
  );
}
