// Stacked charts of one box with a shared cursor: one panel per quantity, so
// that no two units share an axis, and every panel with the same width.
import { useEffect, useMemo, useRef } from "react";
import { useTranslation } from "react-i18next";
import uPlot from "uplot";
import type { Mark, Series, SeriesReply } from "../api/generated";
import { now as present } from "../api/now";
import { metric, number, oldMs, regional, timeZone, unitOf } from "../format";
import { Clock } from "../ui/parts";
import { usePrefs } from "../ui/prefs";
import { useWidth } from "../ui/width";
import { columnsOf } from "./columns";

const panels = [
  { metric: "temp_die_celsius", colour: "--series-1" },
  { metric: "thermal_resistance_kelvin_per_watt", colour: "--series-2" },
  { metric: "fan_rpm", colour: "--series-3" },
  { metric: "power_watts", colour: "--series-4" },
  { metric: "cpu_freq_hertz", colour: "--series-5" },
  { metric: "inference_latency_seconds", colour: "--series-6" },
] as const;

export const chartMetrics = panels.map((panel) => panel.metric);

type Range = { from: Date; to: Date };
type Zoom = (from: Date, to: Date) => void;

export function Charts({ reply, range, zoom }: { reply: SeriesReply; range: Range; zoom: Zoom }) {
  const { t } = useTranslation();
  const byMetric = new Map(reply.series.map((series) => [series.metric, series]));
  const marks = reply.marks ?? [];
  const filled = panels.filter((panel) => (byMetric.get(panel.metric)?.points ?? []).length > 0);
  const last = filled.at(-1)?.metric;
  return (
    <div className="px-3 pb-3">
      {panels.map((panel) => (
        <Panel
          key={panel.metric}
          name={panel.metric}
          colour={panel.colour}
          series={byMetric.get(panel.metric)}
          marks={marks}
          range={range}
          axis={panel.metric === last}
          zoom={zoom}
        />
      ))}
      {marks.length > 0 && (
        <details className="mt-1 text-sm" open={marks.length <= 4}>
          <summary className="min-h-6 text-soft">{t("charts.marks", { count: marks.length })}</summary>
          <ul className="mt-1">
            {marks.slice(-20).map((mark) => (
              <li key={`${mark.t}/${mark.text}`} className="flex gap-3">
                <span className="text-soft">
                  <Clock time={new Date(mark.t).toISOString()} />
                </span>
                <span lang="en">{mark.text}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
      <p className="mt-1 text-xs text-soft">{t("charts.how")}</p>
    </div>
  );
}

type PanelProps = {
  name: string;
  colour: string;
  series: Series | undefined;
  marks: Mark[];
  range: Range;
  axis: boolean;
  zoom: Zoom;
};

function Panel({ name, colour, series, marks, range, axis, zoom }: PanelProps) {
  const { t, i18n } = useTranslation();
  const { dark, zone } = usePrefs();
  const columns = useMemo(() => columnsOf(series, unitOf(name).scale), [series, name]);
  const holder = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLSpanElement>(null);
  const plot = useRef<uPlot>(undefined);
  const width = useWidth(holder);
  const latest = useRef({ marks, range, zoom });
  latest.current = { marks, range, zoom };
  const language = i18n.language;
  const empty = columns.count === 0;

  useEffect(() => {
    const element = holder.current;
    if (!element || width === 0 || empty) return;
    const made = new uPlot(
      options({ element, width, axis, colour, name, language, zone: timeZone(zone), latest, readout }),
      [[], [], [], []],
      element,
    );
    plot.current = made;
    return () => {
      made.destroy();
      plot.current = undefined;
    };
  }, [width, axis, colour, name, language, zone, dark, empty]);

  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    made.setData(columns.data, false);
    made.setScale("x", { min: range.from.getTime() / 1000, max: range.to.getTime() / 1000 });
  }, [columns, range, width, axis, colour, name, language, zone, dark, empty]);

  const say = (value: number) => metric(name, value / unitOf(name).scale, language);
  const last = (columns.data[0].at(-1) ?? 0) * 1000;
  const fresh = present() - last < Math.max(oldMs, 2500 * (series?.step_seconds ?? 0));
  const now = empty ? "" : t(fresh ? "charts.now" : "charts.last", { value: say(columns.last) });
  return (
    <div className="mb-1.5">
      <div className="flex justify-between gap-3 text-xs">
        <h3 className="font-semibold">{t(`metric.${name}`)}</h3>
        <span className="num text-soft">
          <span ref={readout} aria-hidden="true" data-now={now} />
          {columns.count > 0 && (
            <span className="sr-only">
              {now}, {t("charts.summary", { min: say(columns.min), max: say(columns.max) })}
            </span>
          )}
        </span>
      </div>
      {empty ? (
        <p className="hatched rounded border border-line px-2 py-1.5 text-xs text-soft">
          <span className="bg-card px-1">{t("charts.none")}</span>
        </p>
      ) : (
        <div ref={holder} className="min-w-0" style={{ height: axis ? 116 : 88 }} />
      )}
      <Now readout={readout} text={now} />
    </div>
  );
}

/** Now writes the newest value beside the title until a cursor takes its place. */
function Now({ readout, text }: { readout: React.RefObject<HTMLSpanElement | null>; text: string }) {
  useEffect(() => {
    if (readout.current) readout.current.textContent = text;
  }, [readout, text]);
  return null;
}

type Making = {
  element: HTMLElement;
  width: number;
  axis: boolean;
  colour: string;
  name: string;
  language: string;
  zone: string | undefined;
  latest: React.RefObject<{ marks: Mark[]; range: Range; zoom: Zoom }>;
  readout: React.RefObject<HTMLSpanElement | null>;
};

const axisWidth = 72; // "10,000 rpm"

function options(making: Making): uPlot.Options {
  const { element, width, axis, name, language, zone, latest, readout } = making;
  const resolve = (token: string) => {
    element.style.color = `var(${token})`;
    const value = getComputedStyle(element).color;
    element.style.color = "";
    return value;
  };
  const line = resolve("--line");
  const soft = resolve("--soft");
  const stroke = resolve(making.colour);
  const { unit, digits } = unitOf(name);
  const text = { stroke: soft, font: "11px system-ui, sans-serif", grid: { stroke: line, width: 1 } };
  return {
    width,
    height: axis ? 116 : 88,
    // Automatic padding would differ from panel to panel, and marks would not line up.
    // 18 px to the right hold half of the label of a last tick.
    padding: [6, 18, axis ? 0 : 4, 0],
    legend: { show: false },
    cursor: {
      sync: { key: "box", setSeries: false },
      y: false,
      drag: { x: true, y: false, setScale: false },
    },
    tzDate: zone ? (ts) => uPlot.tzDate(new Date(ts * 1000), zone) : undefined,
    scales: { x: { time: true } },
    axes: [
      {
        ...text,
        show: true,
        size: axis ? 26 : 0,
        space: 70,
        ticks: { show: axis, stroke: line, size: 4 },
        values: axis
          ? (_u, splits, _i, _space, step) => splits.map((s) => tick(s, step, language, zone))
          : () => [],
      },
      {
        ...text,
        size: axisWidth,
        space: 26,
        ticks: { show: false },
        values: (_u, splits) => splits.map((v) => `${number(v, language, digits)} ${unit}`),
      },
    ],
    series: [
      {},
      { stroke: "transparent", points: { show: false } },
      { stroke: "transparent", points: { show: false } },
      { stroke, width: 1.5, points: { show: false } },
    ],
    bands: [{ series: [2, 1], fill: stroke.replace("rgb(", "rgba(").replace(")", ", 0.22)") }],
    hooks: {
      draw: [(u) => drawMarks(u, latest.current.marks, soft)],
      setCursor: [(u) => show(u, name, language, zone, readout.current)],
      setSelect: [
        (u) => {
          if (u.select.width < 6) return;
          const from = u.posToVal(u.select.left, "x") * 1000;
          const to = u.posToVal(u.select.left + u.select.width, "x") * 1000;
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          latest.current.zoom(new Date(from), new Date(to));
        },
      ],
    },
  };
}

function tick(seconds: number, step: number, language: string, zone: string | undefined): string {
  const fields: Intl.DateTimeFormatOptions =
    step >= 86_400
      ? { day: "numeric", month: "short" }
      : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return new Intl.DateTimeFormat(regional(language), { ...fields, timeZone: zone }).format(seconds * 1000);
}

function show(
  u: uPlot,
  name: string,
  language: string,
  zone: string | undefined,
  to: HTMLElement | null,
): void {
  if (!to) return;
  const index = u.cursor.idx;
  const value = index == null ? undefined : u.data[3]?.[index];
  const time = index == null ? undefined : u.data[0]?.[index];
  if (value == null || time == null) {
    to.textContent = to.dataset.now ?? "";
    return;
  }
  const at = new Intl.DateTimeFormat(regional(language), {
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    timeZone: zone,
  }).format(time * 1000);
  to.textContent = `${at}: ${metric(name, value / unitOf(name).scale, language)}`;
}

function drawMarks(u: uPlot, marks: Mark[], stroke: string): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = Math.max(1, devicePixelRatio);
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const mark of marks) {
    const x = Math.round(u.valToPos(mark.t / 1000, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
