// A series as the columns that uPlot draws: time, lowest, highest, median.
import type { Series } from "../api/generated";

export type Columns = {
  data: [number[], (number | null)[], (number | null)[], (number | null)[]];
  count: number;
  last: number;
  min: number;
  max: number;
};

/**
 * columnsOf scales values and breaks the line where points are missing: a box
 * that was off has no temperature in between. Boxes may report less often than
 * once per bucket, so a gap is judged by the usual distance of points as well.
 */
export function columnsOf(series: Series | undefined, scale: number): Columns {
  const columns: Columns = { data: [[], [], [], []], count: 0, last: 0, min: 0, max: 0 };
  const points = (series?.points ?? []).filter((p) => p.n > 0);
  if (!series || points.length === 0) return columns;
  const distances = points.slice(1).map((p, i) => p.t - (points[i] as { t: number }).t);
  const usual = distances.sort((a, b) => a - b)[(distances.length - 1) >> 1] ?? 0;
  const gap = Math.max(2.5 * series.step_seconds * 1000, 3 * usual);
  const [time, low, high, middle] = columns.data;
  let previous = Number.NaN;
  columns.min = Number.POSITIVE_INFINITY;
  columns.max = Number.NEGATIVE_INFINITY;
  for (const point of points) {
    if (point.t - previous > gap) {
      time.push((previous + point.t) / 2000);
      low.push(null);
      high.push(null);
      middle.push(null);
    }
    time.push(point.t / 1000);
    low.push(point.min * scale);
    high.push(point.max * scale);
    middle.push(point.median * scale);
    columns.min = Math.min(columns.min, point.min * scale);
    columns.max = Math.max(columns.max, point.max * scale);
    columns.last = point.median * scale;
    previous = point.t;
  }
  columns.count = points.length;
  return columns;
}
