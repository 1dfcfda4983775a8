// The host map as a part of a page: canvas, legend, and the words that say
// what the pointer or the keyboard is on. The table below it holds the same
// boxes for readers who cannot use the canvas.
import { useNavigate } from "@tanstack/react-router";
import { useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import type { Box } from "../api/generated";
import { useNow } from "../api/now";
import { isOld, metric, number, signedPercent } from "../format";
import { Icon } from "../ui/icons";
import { usePrefs } from "../ui/prefs";
import { useWord } from "../ui/state";
import { HostMap, type Ink, type Spot } from "./hostmap";
import { cleanest, coolest, dirtiest, type Fill, hottest, levelSteps, ramps, stepOf } from "./ramp";

/** fillOf is the step and the label of a box for one kind of colour. Old temperatures are not shown. */
function fillOf(box: Box, fill: Fill, now: number): { step: number | undefined; label: string } {
  if (fill === "level") return { step: levelSteps[box.health], label: "" };
  if (fill === "resistance") {
    const { known, resistance_percent: percent } = box.thermal;
    if (!known) return { step: undefined, label: "" };
    return { step: stepOf(percent, cleanest, dirtiest), label: `${Math.round(percent)}%` };
  }
  const die = box.latest.temp_die_celsius;
  if (!die || isOld(die.time, now)) return { step: undefined, label: "" };
  return { step: stepOf(die.value), label: `${Math.round(die.value)}°` };
}

/** spotOf is what the map shows of a box. */
export function spotOf(box: Box, now: number, matching: Set<string> | undefined, fill: Fill = "temp"): Spot {
  return {
    id: box.id,
    name: box.name,
    site: box.site,
    ...fillOf(box, fill, now),
    throttling: box.health === "urgent",
    silent: box.link === "silent" || box.link === "never",
    dimmed: matching ? !matching.has(box.id) : false,
  };
}

const tokens: Ink = {
  text: "--text",
  faint: "--soft",
  line: "--line",
  focus: "--accent",
  empty: "--line",
  alarm: "--map-alarm",
};

/** inkOf resolves the theme's colours, which a canvas cannot read by name. */
function inkOf(element: HTMLElement): Ink {
  const probe = document.createElement("span");
  element.append(probe);
  const ink = { ...tokens };
  for (const [name, token] of Object.entries(tokens)) {
    probe.style.color = `var(${token})`;
    ink[name as keyof Ink] = getComputedStyle(probe).color;
  }
  probe.remove();
  return ink;
}

type Props = { boxes: Box[]; matching: Set<string> | undefined; fill: Fill };

export function HostMapView({ boxes, matching, fill }: Props) {
  const { t, i18n } = useTranslation();
  const word = useWord();
  const navigate = useNavigate();
  const now = useNow(15_000);
  const { dark } = usePrefs();
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const map = useRef<HostMap>(undefined);
  const [width, setWidth] = useState(0);
  const [pointed, setPointed] = useState<{ id: string; spoken: boolean }>();

  const open = useRef(navigate);
  open.current = navigate;

  useEffect(() => {
    if (!canvas.current || !frame.current) return;
    const made = new HostMap(canvas.current, {
      point: (spot, spoken) => setPointed(spot && { id: spot.id, spoken }),
      open: (spot) => void open.current({ to: "/boxes/$id", params: { id: spot.id } }),
    });
    map.current = made;
    const watch = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(frame.current);
    return () => {
      watch.disconnect();
      made.destroy();
      map.current = undefined;
    };
  }, []);

  const sorted = useMemo(
    () => [...boxes].sort((a, b) => a.site.localeCompare(b.site) || a.name.localeCompare(b.name)),
    [boxes],
  );
  const spots = useMemo(
    () => sorted.map((box) => spotOf(box, now, matching, fill)),
    [sorted, now, matching, fill],
  );

  useEffect(() => {
    if (frame.current && width > 0)
      map.current?.show(spots, width, dark ? "dark" : "light", inkOf(frame.current));
  }, [spots, width, dark]);

  const box = pointed && boxes.find((b) => b.id === pointed.id);
  const die = box?.latest.temp_die_celsius;
  const words = box
    ? [
        box.name,
        box.site,
        [word("health", box.health), ...box.thermal.causes.map((c) => word("heatCause", c))].join(": "),
        box.thermal.known
          ? t("box.aboveClean", { percent: number(box.thermal.resistance_percent, i18n.language) })
          : "",
        word("link", box.link),
        die ? metric("temp_die_celsius", die.value, i18n.language) : t("map.noTemperature"),
        box.simulated ? t("simulated") : "",
      ]
        .filter(Boolean)
        .join(", ")
    : "";

  return (
    <div className="px-3 pb-3">
      <p id="map-help" className="sr-only">
        {t("map.help")}
      </p>
      <div ref={frame} className="min-w-0">
        {/* biome-ignore lint/a11y/noInteractiveElementToNoninteractiveRole: the map is an application driven by keys */}
        <canvas
          ref={canvas}
          role="application"
          tabIndex={0}
          aria-label={t("map.label", { count: boxes.length })}
          aria-describedby="map-help"
          className="block max-w-full touch-manipulation"
        />
      </div>
      <p className="mt-2 min-h-10 text-sm sm:min-h-5" aria-hidden="true">
        {words || (
          <span className="text-soft">
            <span className="pointer-coarse:hidden">{t("map.keys")}</span>
            <span className="hidden pointer-coarse:inline">{t("map.tap")}</span>
          </span>
        )}
      </p>
      <p className="sr-only" aria-live="polite">
        {pointed?.spoken ? words : ""}
      </p>
      <Legend dark={dark} fill={fill} />
    </div>
  );
}

function Legend({ dark, fill }: { dark: boolean; fill: Fill }) {
  const { t } = useTranslation();
  return (
    <div className="mt-1 flex flex-wrap items-center gap-x-4 gap-y-1 text-xs text-soft">
      {fill === "level" ? <Levels dark={dark} /> : <Ramp dark={dark} fill={fill} />}
      <span className="inline-flex items-center gap-1.5">
        <Icon name="throttling" size={14} /> {t("health.urgent")}
      </span>
      <span className="inline-flex items-center gap-1.5">
        <Icon name="silent" size={14} /> {t("link.silent")}
      </span>
    </div>
  );
}

function Ramp({ dark, fill }: { dark: boolean; fill: Fill }) {
  const { t, i18n } = useTranslation();
  const [name, ...ends] =
    fill === "resistance"
      ? [
          t("metric.thermal_resistance_kelvin_per_watt"),
          ...[cleanest, dirtiest].map((p) => signedPercent(p, i18n.language)),
        ]
      : [
          t("metric.temp_die_celsius"),
          ...[coolest, hottest].map((c) => metric("temp_die_celsius", c, i18n.language)),
        ];
  return (
    <span className="inline-flex flex-wrap items-center gap-1.5">
      {name} ≤ {ends[0]}
      <span className="flex" aria-hidden="true">
        {ramps[dark ? "dark" : "light"].map((colour) => (
          <span key={colour.css} className="h-3 w-3" style={{ background: colour.css }} />
        ))}
      </span>
      ≥ {ends[1]}
    </span>
  );
}

function Levels({ dark }: { dark: boolean }) {
  const word = useWord();
  return Object.entries(levelSteps).map(([level, step]) => (
    <span key={level} className="inline-flex items-center gap-1.5">
      <span
        className="h-3 w-3"
        aria-hidden="true"
        style={{ background: ramps[dark ? "dark" : "light"][step]?.css }}
      />
      {word("health", level)}
    </span>
  ));
}
