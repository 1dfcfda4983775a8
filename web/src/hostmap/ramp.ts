// What the map shows as colour: die temperature, resistance or level of health.
// Twelve steps whose luminance only rises (dark
// theme) or only falls (light theme): readable in grey and with any colour
// vision. The hue goes from blue over green and sand to red as well.

export type Theme = "light" | "dark";

export const steps = 12;
export const coolest = 30; // °C, and below
export const hottest = 95; // °C, and above

/** Resistance above the clean box, in percent: the ticket line of 6 % is in the third step. */
export const cleanest = 0;
export const dirtiest = 30;

/** stepOf is the ramp's step of a value between least and most, 0 to steps-1. */
export function stepOf(value: number, least = coolest, most = hottest): number {
  const share = (value - least) / (most - least);
  return Math.max(0, Math.min(steps - 1, Math.floor(share * steps)));
}

/** Steps of the levels of health, far enough apart to be told from each other. */
export const levelSteps: Record<string, number> = { healthy: 0, watch: 4, ticket: 8, urgent: 11 };

/** What the colour of a square is about. */
export const fills = ["temp", "resistance", "level"] as const;
export type Fill = (typeof fills)[number];

export const fillOf = (text: string | undefined): Fill => fills.find((fill) => fill === text) ?? "temp";

type RGB = [number, number, number];

/** oklch to linear sRGB, by Björn Ottosson's matrices (bottosson.github.io/posts/oklab). */
function linear(lightness: number, chroma: number, hue: number): RGB {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const clamp = (x: number) => Math.max(0, Math.min(1, x));
  return [
    clamp(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    clamp(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    clamp(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

export type Colour = { css: string; luminance: number; ink: string };

function colour(step: number, theme: Theme): Colour {
  const t = step / (steps - 1);
  const lightness = theme === "dark" ? 0.34 + 0.48 * t : 0.93 - 0.48 * t;
  // Cool steps are calm, hot ones saturated.
  const chroma = 0.05 + 0.12 * t * t;
  const hue = t < 0.5 ? 235 - 290 * t : 90 - 130 * (t - 0.5);
  const rgb = linear(lightness, chroma, hue);
  const gamma = (x: number) => (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
  const [r, g, b] = rgb.map((x) => Math.round(gamma(x) * 255)) as RGB;
  const luminance = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
  // 0.179 is where black and white text contrast equally (WCAG 2, 1.4.3).
  return { css: `rgb(${r} ${g} ${b})`, luminance, ink: luminance > 0.179 ? "#000" : "#fff" };
}

const make = (theme: Theme) => Array.from({ length: steps }, (_, step) => colour(step, theme));

export const ramps: Record<Theme, readonly Colour[]> = { light: make("light"), dark: make("dark") };
