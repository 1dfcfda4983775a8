// How the resistance of a box developed: one dot a day, the median of seven
// days as a line, the lines of the levels, and when it was worked on.
import { useRef } from "react";
import { useTranslation } from "react-i18next";
import type { BoxCare, CareDay } from "../api/generated";
import { day as dayText, number, regional, signedPercent } from "../format";
import { usePrefs } from "../ui/prefs";
import { useWidth } from "../ui/width";

/** The lines of internal/health above which a box is watched or gets a ticket, in percent. */
const watchLine = 3.5;
const ticketLine = 5;

const height = 168;
const pad = { left: 38, right: 8, top: 8, bottom: 20 };

type Scale = { x: (ms: number) => number; y: (percent: number) => number; low: number; high: number };

/** scaleOf fits all days, and at least from -5 to 10 %, into width. */
export function scaleOf(days: CareDay[], width: number): Scale {
  const values = days.flatMap((d) => [d.resistance_percent, d.week_percent]).filter((v) => v !== undefined);
  const low = Math.min(-5, Math.floor(Math.min(...values) / 5) * 5);
  const high = Math.max(10, Math.ceil(Math.max(...values) / 5) * 5);
  const first = Date.parse(days[0]?.day ?? "");
  const last = Date.parse(days.at(-1)?.day ?? "");
  const span = Math.max(1, last - first);
  return {
    x: (ms) => pad.left + ((ms - first) / span) * (width - pad.left - pad.right),
    y: (percent) => pad.top + ((high - percent) / (high - low)) * (height - pad.top - pad.bottom),
    low,
    high,
  };
}

/** linesOf breaks the weekly line where days are missing. */
export function linesOf(days: CareDay[], scale: Scale): string[] {
  const lines: string[] = [];
  let points: string[] = [];
  const flush = () => {
    if (points.length > 1) lines.push(points.join(" "));
    points = [];
  };
  let before = Number.NaN;
  for (const { day, week_percent: week } of days) {
    const at = Date.parse(day);
    if (week === undefined || at - before > 3 * 86_400_000) flush();
    if (week !== undefined) {
      points.push(`${scale.x(at).toFixed(1)},${scale.y(week).toFixed(1)}`);
      before = at;
    }
  }
  flush();
  return lines;
}

/** workKinds are changes that a person made to the box; others, as rollouts, are drawn fainter. */
const byHand = (kind: string) => kind !== "rollout" && kind !== "power-mode" && kind !== "bios";

/** isDrawn tells whether there is a course to draw: two days that were judged. */
export const isDrawn = (days: CareDay[]): boolean =>
  days.filter((day) => day.week_percent !== undefined).length > 1;

export function Resistance({ care }: { care: BoxCare }) {
  const { t, i18n } = useTranslation();
  const { zone } = usePrefs();
  const holder = useRef<HTMLDivElement>(null);
  const width = useWidth(holder);
  const { days } = care;
  const language = i18n.language;
  const week = days.flatMap((d) => (d.week_percent === undefined ? [] : [d.week_percent]));
  const first = days[0]?.day ?? "";
  const last = days.at(-1)?.day ?? "";
  const say = (value: number) => signedPercent(value, language);
  const summary = t("health.chartSummary", {
    from: dayText(first, language, zone),
    to: dayText(last, language, zone),
    start: say(week[0] ?? 0),
    end: say(week.at(-1) ?? 0),
    max: say(Math.max(...week)),
  });
  return (
    <figure>
      <figcaption className="mb-1 flex flex-wrap justify-between gap-x-3 text-xs">
        <span className="font-semibold">{t("health.chart")}</span>
        <span className="text-soft">
          {dayText(first, language, zone)} – {dayText(last, language, zone)}
        </span>
      </figcaption>
      <div ref={holder} className="min-w-0" style={{ height }}>
        {width > 0 && <Drawing care={care} width={width} label={summary} />}
      </div>
      <p className="mt-1 text-xs text-soft">{t("health.chartHow")}</p>
    </figure>
  );
}

function Drawing({ care, width, label }: { care: BoxCare; width: number; label: string }) {
  const { t, i18n } = useTranslation();
  const scale = scaleOf(care.days, width);
  const step = scale.high - scale.low > 40 ? 20 : scale.high - scale.low > 20 ? 10 : 5;
  const ticks: number[] = [];
  for (let v = Math.ceil(scale.low / step) * step; v <= scale.high; v += step) ticks.push(v || 0); // no -0
  const start = Date.parse(care.days[0]?.day ?? "");
  const changes = care.changes.filter((c) => Date.parse(c.time) >= start);
  return (
    <svg width={width} height={height} role="img" aria-label={label} className="block">
      {ticks.map((tick) => (
        <g key={tick}>
          <line
            x1={pad.left}
            x2={width - pad.right}
            y1={scale.y(tick)}
            y2={scale.y(tick)}
            className={tick === 0 ? "stroke-edge" : "stroke-line"}
          />
          <text
            x={pad.left - 5}
            y={scale.y(tick) + 4}
            textAnchor="end"
            fontSize="11"
            className="num fill-soft"
          >
            {number(tick, i18n.language)} %
          </text>
        </g>
      ))}
      {[watchLine, ticketLine].map((line) => (
        <line
          key={line}
          x1={pad.left}
          x2={width - pad.right}
          y1={scale.y(line)}
          y2={scale.y(line)}
          className="stroke-warm"
          strokeDasharray={line === ticketLine ? "6 3" : "2 4"}
        />
      ))}
      <text x={pad.left + 4} y={scale.y(ticketLine) - 3} fontSize="11" className="fill-warm">
        {t("health.line")}
      </text>
      {changes.map((change) => (
        <line
          key={`${change.time}/${change.kind}`}
          x1={scale.x(Date.parse(change.time))}
          x2={scale.x(Date.parse(change.time))}
          y1={pad.top}
          y2={height - pad.bottom}
          strokeDasharray="3 3"
          className={byHand(change.kind) ? "stroke-busy" : "stroke-edge"}
        />
      ))}
      {care.cleanings.map((c) => (
        <g key={c.time} className="stroke-ok" strokeWidth="2" fill="none">
          <line
            x1={scale.x(Date.parse(c.time))}
            x2={scale.x(Date.parse(c.time))}
            y1={scale.y(c.before_percent)}
            y2={scale.y(c.after_percent) - 5}
          />
          <path d={`M${scale.x(Date.parse(c.time)) - 4} ${scale.y(c.after_percent) - 8}l4 6 4-6`} />
        </g>
      ))}
      {care.days.map(
        (d) =>
          d.resistance_percent !== undefined && (
            <circle
              key={d.day}
              cx={scale.x(Date.parse(d.day))}
              cy={scale.y(d.resistance_percent)}
              r="1.8"
              className="fill-soft"
              opacity="0.6"
            />
          ),
      )}
      {linesOf(care.days, scale).map((points) => (
        <polyline
          key={points}
          points={points}
          fill="none"
          stroke="var(--series-2)"
          strokeWidth="2"
          strokeLinejoin="round"
        />
      ))}
      <Months care={care} scale={scale} width={width} />
    </svg>
  );
}

/** Months marks the days below, as many as have room. */
function Months({ care, scale, width }: { care: BoxCare; scale: Scale; width: number }) {
  const { i18n } = useTranslation();
  const { days } = care;
  const room = Math.max(1, Math.ceil(days.length / 6));
  const format = new Intl.DateTimeFormat(regional(i18n.language), {
    day: "numeric",
    month: "short",
    timeZone: "UTC",
  });
  return days
    .filter(({ day }, i) => i % room === Math.floor(room / 2) && scale.x(Date.parse(day)) < width - 26)
    .map(({ day }) => (
      <text
        key={day}
        x={scale.x(Date.parse(day))}
        y={height - 5}
        textAnchor="middle"
        fontSize="11"
        className="num fill-soft"
      >
        {format.format(new Date(day))}
      </text>
    ));
}
