import { describe, expect, test } from "vitest";
import { type Cell, cellSize, hit, layout, move, nextWhere, place } from "../../src/hostmap/layout";
import { ramps, stepOf, steps, type Theme } from "../../src/hostmap/ramp";

const fleet = (...counts: number[]): Cell[] =>
  counts.flatMap((count, s) =>
    Array.from({ length: count }, (_, k) => ({ id: `${s}-${k}`, site: `site-${s}` })),
  );

describe("layout", () => {
  const cases: [string, Cell[], number][] = [
    ["no box", [], 800],
    ["one box on a narrow phone", fleet(1), 60],
    ["a few sites", fleet(4, 3, 1, 9), 390],
    ["a thousand boxes", fleet(...Array(50).fill(20)), 1200],
    ["ten thousand boxes", fleet(...Array(416).fill(24)), 1400],
  ];
  test.each(cases)("%s: each box has its own place within the map", (_, cells, width) => {
    const plan = layout(cells, width);
    const seen = new Set<string>();
    cells.forEach((_cell, index) => {
      const { x, y } = place(plan, index);
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x + plan.cell).toBeLessThanOrEqual(Math.max(width, plan.cell));
      expect(y + plan.cell).toBeLessThanOrEqual(plan.height + 0.001);
      seen.add(`${x}/${y}`);
    });
    expect(seen.size).toBe(cells.length);
  });

  test.each(cases)("%s: a point within a box hits that box", (_, cells, width) => {
    const plan = layout(cells, width);
    cells.forEach((_cell, index) => {
      const { x, y } = place(plan, index);
      expect(hit(plan, x + plan.cell / 2, y + plan.cell / 2)).toBe(index);
    });
    expect(hit(plan, -5, 5)).toBe(-1);
    expect(hit(plan, 5, plan.height + 50)).toBe(-1);
  });

  test("boxes of a site stay together", () => {
    const plan = layout(fleet(4, 3, 5), 500);
    expect(plan.blocks.map((b) => [b.site, b.first, b.count])).toEqual([
      ["site-0", 0, 4],
      ["site-1", 4, 3],
      ["site-2", 7, 5],
    ]);
  });

  test("more boxes get smaller squares", () => {
    expect([10, 100, 1000, 10_000].map(cellSize)).toEqual([44, 28, 16, 9]);
  });
});

describe("keys", () => {
  const cells = fleet(6, 6);
  const plan = layout(cells, 1000);
  test("left and right follow the order and stop at the ends", () => {
    expect(move(plan, 0, "ArrowRight", 12)).toBe(1);
    expect(move(plan, 11, "ArrowRight", 12)).toBe(11);
    expect(move(plan, 0, "ArrowLeft", 12)).toBe(0);
    expect(move(plan, 3, "End", 12)).toBe(11);
    expect(move(plan, 3, "Home", 12)).toBe(0);
  });
  test("down and up go to the box below and back", () => {
    const below = move(plan, 0, "ArrowDown", 12);
    expect(place(plan, below).y).toBeGreaterThan(place(plan, 0).y);
    expect(move(plan, below, "ArrowUp", 12)).toBe(0);
  });
  test("the first key on an unfocused map focuses the first box", () => {
    expect(move(plan, -1, "ArrowDown", 12)).toBe(0);
    expect(move(plan, -1, "ArrowDown", 0)).toBe(-1);
  });
  test("n goes round and finds nothing in a healthy fleet", () => {
    const sick = new Set([2, 9]);
    expect(nextWhere(12, -1, (i) => sick.has(i))).toBe(2);
    expect(nextWhere(12, 2, (i) => sick.has(i))).toBe(9);
    expect(nextWhere(12, 9, (i) => sick.has(i))).toBe(2);
    expect(nextWhere(12, 0, () => false)).toBe(-1);
  });
});

describe("ramp", () => {
  test.each(["light", "dark"] as Theme[])("%s: luminance only rises or only falls", (theme) => {
    const values = ramps[theme].map((c) => c.luminance);
    const sorted = [...values].sort((a, b) => (theme === "dark" ? a - b : b - a));
    expect(values).toEqual(sorted);
    expect(new Set(ramps[theme].map((c) => c.css)).size).toBe(steps);
  });
  test.each(["light", "dark"] as Theme[])("%s: numbers on it can be read", (theme) => {
    for (const { luminance, ink } of ramps[theme]) {
      const other = ink === "#000" ? 0 : 1;
      const [high, low] = [Math.max(luminance, other), Math.min(luminance, other)];
      expect((high + 0.05) / (low + 0.05)).toBeGreaterThanOrEqual(4.5);
    }
  });
  test("temperatures beyond the ends take the end colours", () => {
    expect([-40, 30, 62.4, 95, 150].map((c) => stepOf(c))).toEqual([0, 0, 5, 11, 11]);
  });
});
