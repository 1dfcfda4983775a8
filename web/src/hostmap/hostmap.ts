// The host map: one square per box on a canvas, grouped by site. It knows
// nothing of React, since it redraws on every live sample.
import { hit, type Layout, layout, move, nextWhere, place } from "./layout";
import { ramps, type Theme } from "./ramp";

/** Spot is what the map shows of one box. */
export type Spot = {
  id: string;
  name: string;
  site: string;
  step: number | undefined; // of the ramp; undefined: not known or too old
  label: string; // in the square, where there is room
  throttling: boolean;
  silent: boolean;
  dimmed: boolean; // does not match the filter
};

export type Ink = { text: string; faint: string; line: string; focus: string; empty: string; alarm: string };

export type Callbacks = {
  /** The box under the keyboard or the pointer changed. */
  point: (spot: Spot | undefined, byKeyboard: boolean) => void;
  open: (spot: Spot) => void;
};

const arrows = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"]);

export class HostMap {
  private spots: Spot[] = [];
  private plan: Layout = layout([], 1);
  private focus = -1;
  private hover = -1;
  private frame = 0;
  private theme: Theme = "light";
  private ink: Ink = {
    text: "#000",
    faint: "#666",
    line: "#ccc",
    focus: "#00f",
    empty: "#ddd",
    alarm: "#c00",
  };
  private readonly canvas: HTMLCanvasElement;
  private readonly callbacks: Callbacks;

  constructor(canvas: HTMLCanvasElement, callbacks: Callbacks) {
    this.canvas = canvas;
    this.callbacks = callbacks;
    canvas.addEventListener("keydown", this.onKey);
    canvas.addEventListener("pointermove", this.onMove);
    canvas.addEventListener("pointerleave", this.onLeave);
    canvas.addEventListener("click", this.onClick);
    canvas.addEventListener("focus", this.onFocus);
    canvas.addEventListener("blur", this.draw);
  }

  destroy(): void {
    cancelAnimationFrame(this.frame);
    this.canvas.removeEventListener("keydown", this.onKey);
    this.canvas.removeEventListener("pointermove", this.onMove);
    this.canvas.removeEventListener("pointerleave", this.onLeave);
    this.canvas.removeEventListener("click", this.onClick);
    this.canvas.removeEventListener("focus", this.onFocus);
    this.canvas.removeEventListener("blur", this.draw);
  }

  /** show draws spots, which must be grouped by site, within width CSS pixels. */
  show(spots: Spot[], width: number, theme: Theme, ink: Ink): void {
    const focused = this.spots[this.focus]?.id;
    this.spots = spots;
    this.theme = theme;
    this.ink = ink;
    this.plan = layout(spots, Math.max(60, width));
    this.focus = focused ? spots.findIndex((s) => s.id === focused) : -1;
    this.hover = -1;
    const ratio = window.devicePixelRatio || 1;
    const height = Math.max(1, this.plan.height);
    // Setting a canvas's size clears it, also to the same size.
    if (this.canvas.width !== Math.round(this.plan.width * ratio))
      this.canvas.width = this.plan.width * ratio;
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = height * ratio;
    this.canvas.style.width = `${this.plan.width}px`;
    this.canvas.style.height = `${height}px`;
    this.draw();
  }

  private readonly draw = (): void => {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.paint());
  };

  private paint(): void {
    const c = this.canvas.getContext("2d");
    if (!c) return;
    const ratio = window.devicePixelRatio || 1;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.plan.width, this.plan.height);
    if (this.plan.labels) this.paintLabels(c);
    this.spots.forEach((spot, index) => {
      const { x, y } = place(this.plan, index);
      this.paintSpot(c, spot, x, y);
    });
    c.globalAlpha = 1;
    if (this.hover >= 0) this.paintRing(c, this.hover, this.ink.text, 1.5);
    if (this.focus >= 0 && document.activeElement === this.canvas) {
      this.paintRing(c, this.focus, this.ink.focus, 3);
    }
  }

  private paintLabels(c: CanvasRenderingContext2D): void {
    c.font = "600 12px system-ui, sans-serif";
    c.textBaseline = "alphabetic";
    c.textAlign = "left";
    for (const block of this.plan.blocks) {
      c.fillStyle = this.ink.faint;
      c.fillText(shorten(c, block.site || "–", block.width), block.x, block.y - 7);
    }
  }

  private paintSpot(c: CanvasRenderingContext2D, spot: Spot, x: number, y: number): void {
    const size = this.plan.cell - (this.plan.cell > 20 ? 4 : this.plan.cell > 12 ? 2 : 1);
    const known = spot.step !== undefined;
    const colour = known ? ramps[this.theme][spot.step as number] : undefined;
    c.globalAlpha = spot.dimmed ? 0.22 : 1;
    c.fillStyle = colour?.css ?? this.ink.empty;
    c.fillRect(x, y, size, size);
    const ink = colour?.ink ?? this.ink.faint;
    if (spot.silent) {
      // What was last known of its health keeps its colour below the cross.
      c.strokeStyle = ink;
      c.lineWidth = size > 20 ? 2 : 1;
      c.strokeRect(x + 1, y + 1, size - 2, size - 2);
      c.beginPath();
      c.moveTo(x + 2, y + 2);
      c.lineTo(x + size - 2, y + size - 2);
      c.moveTo(x + size - 2, y + 2);
      c.lineTo(x + 2, y + size - 2);
      c.stroke();
    } else if (size >= 36) {
      c.fillStyle = ink;
      c.font = "500 13px system-ui, sans-serif";
      c.textAlign = "center";
      c.textBaseline = "middle";
      c.fillText(known ? spot.label : "–", x + size / 2, y + size * (spot.throttling ? 0.72 : 0.53));
      c.textBaseline = "alphabetic";
    }
    if (spot.throttling && !spot.silent) this.paintTriangle(c, x, y, size);
  }

  private paintTriangle(c: CanvasRenderingContext2D, x: number, y: number, size: number): void {
    const big = size >= 36;
    const middle = x + size / 2;
    const top = y + size * (big ? 0.1 : 0.18);
    const bottom = y + size * (big ? 0.46 : 0.82);
    const half = (bottom - top) * 0.58;
    c.beginPath();
    c.moveTo(middle, top);
    c.lineTo(middle + half, bottom);
    c.lineTo(middle - half, bottom);
    c.closePath();
    c.fillStyle = this.ink.alarm;
    c.fill();
    // The outline keeps the triangle visible on a square of the same red.
    c.strokeStyle = "#fff";
    c.lineWidth = size > 12 ? 1.5 : 0.75;
    c.stroke();
  }

  private paintRing(c: CanvasRenderingContext2D, index: number, style: string, width: number): void {
    const { x, y } = place(this.plan, index);
    const size = this.plan.cell - (this.plan.cell > 20 ? 4 : 1);
    const inset = width / 2;
    c.strokeStyle = style;
    c.lineWidth = width;
    c.strokeRect(x + inset, y + inset, size - width, size - width);
  }

  private readonly onKey = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (arrows.has(event.key)) this.go(move(this.plan, this.focus, event.key, this.spots.length));
    else if (event.key === "n") {
      const sick = (i: number) => !!this.spots[i]?.throttling || !!this.spots[i]?.silent;
      this.go(nextWhere(this.spots.length, this.focus, sick));
    } else if (event.key === "Enter") {
      const spot = this.spots[this.focus];
      if (spot) this.callbacks.open(spot);
    } else return;
    event.preventDefault();
  };

  private go(index: number): void {
    if (index < 0) return;
    this.focus = index;
    this.callbacks.point(this.spots[index], true);
    this.draw();
  }

  private readonly onFocus = (): void => {
    if (this.focus < 0 && this.spots.length > 0) this.focus = 0;
    this.callbacks.point(this.spots[this.focus], true);
    this.draw();
  };

  private at(event: MouseEvent): number {
    const box = this.canvas.getBoundingClientRect();
    return hit(this.plan, event.clientX - box.left, event.clientY - box.top);
  }

  private readonly onMove = (event: PointerEvent): void => {
    const index = this.at(event);
    if (index === this.hover) return;
    this.hover = index;
    this.canvas.style.cursor = index >= 0 ? "pointer" : "default";
    this.callbacks.point(this.spots[index], false);
    this.draw();
  };

  private readonly onLeave = (): void => {
    this.hover = -1;
    this.callbacks.point(undefined, false);
    this.draw();
  };

  private readonly onClick = (event: MouseEvent): void => {
    const spot = this.spots[this.at(event)];
    if (spot) this.callbacks.open(spot);
  };
}

function shorten(c: CanvasRenderingContext2D, text: string, width: number): string {
  if (c.measureText(text).width <= width) return text;
  let keep = text.length - 1;
  while (keep > 1 && c.measureText(`${text.slice(0, keep)}…`).width > width) keep--;
  return `${text.slice(0, keep)}…`;
}
